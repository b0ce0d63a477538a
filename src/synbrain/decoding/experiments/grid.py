"""Decoders of an experiment, one JSON file each: an interruption or a failure loses none that is finished."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from synbrain.data.dataset import Dataset
from synbrain.errors import SynBrainError
from synbrain.features.store import open_tokens
from synbrain.features.writing import launched_together
from synbrain.files import alone, read_json, require_absent, write_json
from synbrain.progress import track

Result = dict[str, Any]
MEND = "pass --overwrite, or another --out"


def require_one_process(command: str) -> None:
    """Refuse an experiment that several processes began: its decoders are small, and one fits them all.

    Raises:
        SynBrainError: in each of them, before any work.
    """
    if launched_together():
        raise SynBrainError(
            f"{command} fits its decoders in one process, and accelerate or torchrun started several",
            "start it without them, or with --num_processes 1",
        )


def decoded_content(datasets: Sequence[Dataset], encoder: str, layer: str | None) -> list[str]:
    """For an identity: digests of the tokens that are decoded, as pictures and encoders change under names.

    Args:
        datasets: whose tokens.
        encoder, layer: that are decoded; None: the last layer that was made.

    Raises:
        SynBrainError: where one has no such tokens.
    """
    sets = [open_tokens(dataset, encoder, [layer] if layer else None) for dataset in datasets]
    return [part for tokens in sets for part in tokens.only(layer or list(tokens.layers)[-1]).content]


class Place(Hashable, Protocol):
    """Which decoder of the experiment: a frozen dataclass of plain values."""

    @property
    def name(self) -> str:
        """Unique; of its file."""
        ...


P = TypeVar("P", bound=Place)


@dataclass(frozen=True)
class Grid(Generic[P]):
    """What is on disk of an experiment.

    Attributes:
        folder: of the experiment; decoders lie in its subfolder ``cells``.
        place: the class of its places.
        identity: digest of all that the decoder of a place depends on.
        fit: fits and scores it; gives what JSON can hold.
    """

    folder: Path
    place: type[P]
    identity: Callable[[P], str]
    fit: Callable[[P], Result]

    @property
    def cells(self) -> Path:
        """One file a decoder."""
        return self.folder / "cells"

    def begin(self, summary: str, *, overwrite: bool, resume: bool) -> None:
        """Refuse a finished experiment, whose ``summary`` stands in the folder, unless told otherwise.

        Args:
            summary: name of the file that is written in the end.
            overwrite: forget all decoders.
            resume: the finished experiment is to be extended.

        Raises:
            SynBrainError: where it is finished and neither was asked for.
        """
        require_absent(self.folder / summary, overwrite or resume)
        if overwrite:
            shutil.rmtree(self.cells, ignore_errors=True)
            (self.folder / summary).unlink(missing_ok=True)

    def all(
        self, places: Sequence[P], *, earlier: bool = False, show_progress: bool = False
    ) -> tuple[dict[P, Result], dict[str, str]]:
        """Results of all decoders, and, by name, what is wrong with those that failed.

        Args:
            places: of the decoders, in the order in which they are fitted.
            earlier: give those too that earlier calls finished at other places.
            show_progress: a bar over the decoders.

        Raises:
            SynBrainError: where one was made with other settings, before anything is trained or written over;
                where another process is at this experiment.
        """
        paths = sorted(self.cells.glob("*.json")) if earlier else []
        known = [self.place(**self._read(path)["place"]) for path in paths]
        wanted = list(dict.fromkeys([*places, *known]))
        for place in wanted:
            self.stored(place)
        results: dict[P, Result] = {}
        failed: dict[str, str] = {}
        with alone(self.folder):  # two processes would train one decoder in one folder
            for place in track(wanted, "decoders", unit="decoder", show=show_progress):
                try:
                    results[place] = self.finished(place)
                except SynBrainError as error:
                    failed[place.name] = str(error)
        return results, failed

    def finished(self, place: P) -> Result:
        """The result of a place, fitted now unless it is on disk."""
        stored = self.stored(place)
        if stored is not None:
            return stored
        result = self.fit(place)
        write_json(self._path(place), {"place": vars(place), "identity": self.identity(place)} | result)
        return result

    def stored(self, place: P) -> Result | None:
        """The result of an earlier call.

        Raises:
            SynBrainError: where it was made with other settings.
        """
        path = self._path(place)
        if not path.exists():
            return None
        stored: Result = read_json(path)
        if stored.pop("identity") != self.identity(place):
            raise SynBrainError(
                f"{path} was made with other settings or data", "pass --overwrite, or another --out"
            )
        del stored["place"]
        return stored

    @contextmanager
    def workspace(self, place: P) -> Iterator[Path]:
        """A folder for the checkpoints of a decoder, which goes when it is trained or has failed."""
        folder = self.cells / f".{place.name}"
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _read(self, path: Path) -> Result:
        """A decoder's file.

        Raises:
            SynBrainError: where another version wrote it.
        """
        stored: Result = read_json(path)
        known = {field.name for field in fields(self.place)}  # type: ignore[arg-type]
        if "identity" not in stored or set(stored.get("place", ())) != known:
            raise SynBrainError(f"{path} was made by another version", MEND)
        return stored

    def _path(self, place: P) -> Path:
        return self.cells / f"{place.name}.json"
