"""Every ``>>>`` example in the package runs and gives what it says; public names carry one."""

from __future__ import annotations

import doctest
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

import synbrain

SOURCE = Path(synbrain.__file__).parent
EXAMPLE = re.compile(r"^\s*>>> ", re.MULTILINE)
WITH_EXAMPLES = sorted(
    "synbrain." + ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    for path in SOURCE.rglob("*.py")
    if path.name != "__init__.py" and EXAMPLE.search(path.read_text(encoding="utf-8"))
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_of_a_module(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    module = pytest.importorskip(name) if name.startswith("synbrain.viewer") else import_module(name)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    done = doctest.testmod(module, optionflags=options)
    assert done.attempted > 0
    assert done.failed == 0


@pytest.mark.parametrize("name", synbrain.__all__)
def test_public_names_carry_an_example(name: str) -> None:
    thing = getattr(synbrain, name)
    texts = [thing.__doc__ or ""]
    if inspect.isclass(thing):
        texts += [member.__doc__ or "" for member in vars(thing).values() if inspect.isfunction(member)]
    assert any(EXAMPLE.search(text) for text in texts)
