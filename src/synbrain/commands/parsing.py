"""A library function as a command: its signature gives the options, its docstring the help.

- A parameter without a default is a word of its own unless it is keyword-only; then it is a required option.
- ``options``, a frozen pydantic model or dataclass, is spread flat (``--seed``); other models are nested
  (``--vae.lr``).
- ``list[X]`` takes several words; a ``bool`` that is False by default is a flag.
- ``Dataset`` takes a folder and is opened, ``SynBrain`` and ``Decoder`` a folder or hub id, on ``--device``.
- ``show_progress`` is not shown and true. ``--config`` reads any option from YAML, and words win.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

from docstring_parser import Docstring
from docstring_parser import parse as parse_docstring
from jsonargparse import ActionConfigFile, ArgumentParser
from pydantic import BaseModel, ValidationError

from synbrain.commands.opening import (
    open_dataset,
    open_decoder,
    open_run,
    require_decoder,
    require_run,
    require_tokens,
)
from synbrain.commands.registry import Command
from synbrain.commands.signatures import (
    DatasetFolder,
    DecoderFolder,
    RunFolder,
    signature_of,
    signature_of_function,
)
from synbrain.commands.wording import HelpFormatter, dashed, in_plain_words, plain_text, underscored
from synbrain.errors import SynBrainError, refused_option

LISTS = (list, Sequence, Iterable)
REQUIRED = inspect.Parameter.empty
DEVICE = "where the networks run: auto, cpu, cuda, ..."


@dataclasses.dataclass(frozen=True)
class Option:
    """One word or option of a command.

    Attributes:
        key: its name, with underscores; dashes on the command line.
        hint: its type; DatasetFolder, RunFolder and DecoderFolder are folders.
        default: REQUIRED where it must be given.
        is_word: positional, without a name.
        help: one sentence.
        group: name of the parameter whose field it is ("options"), else empty.
    """

    key: str
    hint: Any
    default: Any
    is_word: bool
    help: str
    group: str = ""


@dataclasses.dataclass(frozen=True)
class Call:
    """A command ready to run: what was typed, by parameter, and how to get the function.

    Attributes:
        typed: values by parameter; folders are not opened yet; only what ``function`` takes.
        device: for models, where the command has such an option.
        folded: whether models are opened for prediction alone.
        reads_tokens: whether tokens of the options' encoder must lie with the datasets.
    """

    function: Callable[[], Callable[..., Any]]
    signature: inspect.Signature
    typed: dict[str, Any]
    device: str
    folded: bool = False
    reads_tokens: bool = False

    def run(self) -> Any:
        """Open datasets, then models, and call the function."""
        parameters = self.signature.parameters
        given = dict(self.typed)
        for key, parameter in parameters.items():
            if _folder_kind(parameter.annotation) is DatasetFolder and given.get(key) is not None:
                given[key] = _each(given[key], open_dataset)
            elif _folder_kind(parameter.annotation) is RunFolder and given.get(key) is not None:
                _each(given[key], require_run)
            elif key == "run" and isinstance(given.get(key), Path):
                require_run(given[key])
            elif isinstance(given.get(key), Path) and (
                key == "decoder" or _folder_kind(parameter.annotation) is DecoderFolder
            ):
                require_decoder(given[key])
            elif key == "images" and isinstance(given.get(key), list):
                from synbrain.model.image_list import list_images  # needs no torch, unlike the command

                list_images(given[key])
        if self.reads_tokens:
            for key in {"dataset", "datasets"} & set(given):
                _each(given[key], lambda dataset: require_tokens(dataset, given["options"]))
        function = self.function()
        for key, parameter in parameters.items():
            if _folder_kind(parameter.annotation) is RunFolder and given.get(key) is not None:
                given[key] = _each(given[key], lambda run: open_run(run, self.device, self.folded))
            elif _folder_kind(parameter.annotation) is DecoderFolder and given.get(key) is not None:
                given[key] = open_decoder(given[key], self.device)
        for key, parameter in parameters.items():
            if isinstance(given.get(key), Mapping) and _is_model(parameter.annotation):
                given[key] = _built(parameter.annotation, given[key])
        if "show_progress" in parameters:
            given["show_progress"] = True
        by_place = [given.pop(key) for key, p in parameters.items() if p.kind is p.POSITIONAL_ONLY]
        return function(*by_place, **given)


def run_function(function: Callable[..., Any], name: str, words: list[str]) -> Any:
    """Parse ``words`` against the signature of ``function`` and call it."""
    return _call(lambda: function, signature_of_function(function), name, words, Command("", "", "")).run()


def prepare_call(command: Command, name: str, words: list[str]) -> Call:
    """Parse ``words`` for a command without importing its function's module."""

    def function() -> Callable[..., Any]:
        module, _, attribute = command.home.partition(":")
        loaded: Callable[..., Any] = getattr(import_module(module), attribute)
        return loaded

    return _call(function, signature_of(command.home, command.hidden), name, words, command)


def parser_of(command: Command, name: str) -> CommandParser:
    """The parser of a command, for help pages and completion."""
    signature, doc = signature_of(command.home, command.hidden)
    return CommandParser(name, options_of(signature, doc, command), doc, command.example)


def options_of(signature: inspect.Signature, doc: Docstring, command: Command) -> list[Option]:
    """The words and options that a signature asks for, in order."""
    described = {entry.arg_name: entry.description or "" for entry in doc.params}
    options: list[Option] = []
    for key, parameter in signature.parameters.items():
        if key == "show_progress":
            continue
        hint, default, text = parameter.annotation, parameter.default, described.get(key, "")
        if key in command.required:
            default = REQUIRED
            text = text.partition(";")[0]  # what follows says what leaving it out does, in Python
        if key == "options" and _is_model(hint):
            options += _fields(hint, default, key)
            continue
        is_word = parameter.kind is parameter.POSITIONAL_ONLY or (
            default is REQUIRED and parameter.kind is not parameter.KEYWORD_ONLY
        )
        options.append(Option(key, hint, default, is_word, text))
    has_model = any(_folder_kind(option.hint) in (RunFolder, DecoderFolder) for option in options)
    if has_model and not any(option.key == "device" for option in options):
        options.append(Option("device", str, "auto", False, DEVICE))
    return options


class CommandParser(ArgumentParser):
    """The parser of one command: one line for a mistake, with what was probably meant."""

    def __init__(self, name: str, options: list[Option], doc: Docstring, example: str = "") -> None:
        description = "\n\n".join(filter(None, (doc.short_description, doc.long_description)))
        super().__init__(
            prog=f"synbrain {name}",
            description=re.sub(r"`{1,2}([^`]+)`{1,2}", r"\1", description) or None,
            epilog=f"example:\n  {example}" if example else None,
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )
        self.several: dict[str, Any] = {}
        self.options = options
        words = [shown_word(option) for option in options if option.is_word]
        needed = [
            f"--{option.key} {option.key.rpartition('.')[2].upper()}"
            for option in options
            if not option.is_word and option.default is REQUIRED
        ]
        self.usage = dashed(" ".join([f"synbrain {name}", *words, *needed, "[options]"]))
        required = self.add_argument_group("required options") if needed else self
        if needed:  # before the others
            groups: list[Any] = self._action_groups  # type: ignore[assignment]
            groups.insert(1, groups.pop())
        for option in options:
            target = required if not option.is_word and option.default is REQUIRED else self
            self._add(target, option)
        if all(option.key != "config" for option in options):
            self.add_argument("--config", action=ActionConfigFile, help="YAML file with any of the options")

    def _add(self, target: Any, option: Option) -> None:
        hint = _on_command_line(option.hint)
        needed = option.default is REQUIRED
        flag = option.key if option.is_word else f"--{option.key}"
        named: dict[str, Any] = {"help": plain_text(option.help) or None}
        if not option.is_word and needed:
            named["required"] = True
        if not needed:
            named["default"] = _on_command_line_value(option.default)
        if hint is bool and option.default is False:
            target.add_argument(flag, action="store_true", help=named["help"])
            return
        if (item := _item_of_list(hint)) is not None:
            named |= {"nargs": "+", "type": item}
            self.several[option.key] = tuple if _is_tuple(hint) else list
        elif option.is_word and not needed:
            named |= {"nargs": "?", "type": hint}
        else:
            named["type"] = hint
        if _is_model(hint):
            named.pop("help")
        if option.is_word and _folder_kind(option.hint) is RunFolder:
            named["metavar"] = "run"
        target.add_argument(flag, **named)

    def parse(self, words: list[str]) -> dict[str, Any]:
        """Values by option; models are built, lists are lists."""
        words = self._as_word([underscored(word) for word in words])
        self._refuse_unknown(words)
        values = self.instantiate(self.parse_args(words))
        given = {option.key: values[option.key] for option in self.options if option.key in values}
        return {
            key: self.several[key](value) if key in self.several and value is not None else value
            for key, value in given.items()
        }

    def _as_word(self, words: list[str]) -> list[str]:
        """``--checkpoint last.pth`` says what ``last.pth`` does, where a command takes one word."""
        names = [f"--{option.key}" for option in self.options if option.is_word]
        if len(names) != 1 or names[0] not in words[:-1]:
            return words
        at = words.index(names[0])
        return [words[at + 1], *words[:at], *words[at + 2 :]]

    def _refuse_unknown(self, words: list[str]) -> None:
        known = self._option_string_actions
        for word in words:
            if word == "--":
                return
            name = word.partition("=")[0]
            if not name.startswith("--") or name in known:
                continue
            parent = name.rpartition(".")[0]
            if parent in known and not any(other.startswith(parent + ".") for other in known):
                continue  # an entry of a mapping: --subject-weights.subj01 2
            near = get_close_matches(name, known, n=1, cutoff=0.6)
            if not near and (ends := [o for o in known if o.endswith(("." + name[2:], "_" + name[2:]))]):
                near = ends[:1]
            hint = f"did you mean {near[0]}?" if near else f"{self.prog} --help lists them"
            self.error(f"there is no option {name} ({hint})")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """One line on stderr, and exit code 2."""
        text = " ".join(message.split())
        by_place = [option.key for option in self.options if option.is_word]
        sys.stderr.write(f"{self.prog}: {dashed(in_plain_words(text, by_place))}\n")
        self.exit(2)

    def format_help(self, *given: Any, **named: Any) -> str:  # older jsonargparse passes no formatter
        return dashed(super().format_help(*given, **named))

    def format_usage(self) -> str:
        return dashed(super().format_usage())


def _call(
    function: Callable[[], Callable[..., Any]],
    source: tuple[inspect.Signature, Docstring],
    name: str,
    words: list[str],
    command: Command,
) -> Call:
    signature, doc = source
    parser = CommandParser(name, options_of(signature, doc, command), doc, command.example)
    values = parser.parse(words)
    seed = values.get("seed")
    if isinstance(seed, int) and seed < 0:
        raise SynBrainError(f"--seed {seed}", "give a whole number from 0 on")
    typed: dict[str, Any] = {}
    for key, parameter in signature.parameters.items():
        if key == "options" and _is_model(parameter.annotation):
            fields = [option.key for option in parser.options if option.group == key]
            typed[key] = _built(parameter.annotation, {name: values[name] for name in fields})
        elif key in values:
            typed[key] = values[key]
    return Call(
        function, signature, typed, str(values.get("device", "auto")), command.folded, command.reads_tokens
    )


def _fields(model: Any, default: Any, group: str) -> list[Option]:
    """The fields of a pydantic model or dataclass; ``default`` is an instance, or REQUIRED."""
    hints = get_type_hints(model)
    described = {e.arg_name: e.description or "" for e in parse_docstring(model.__doc__ or "").params}
    options = []
    if issubclass(model, BaseModel):
        for key, field in model.model_fields.items():
            value = REQUIRED if field.is_required() else field.get_default(call_default_factory=True)
            if default is not REQUIRED:
                value = getattr(default, key)
            options.append(
                Option(key, hints[key], value, False, field.description or described.get(key, ""), group)
            )
        return options
    for entry in dataclasses.fields(model):
        value = REQUIRED if entry.default is dataclasses.MISSING else entry.default
        if entry.default_factory is not dataclasses.MISSING:
            value = entry.default_factory()
        if default is not REQUIRED:
            value = getattr(default, entry.name)
        options.append(
            Option(entry.name, hints[entry.name], value, False, described.get(entry.name, ""), group)
        )
    return options


def _built(model: type, values: Mapping[str, Any]) -> Any:
    """An options object, or one line that names the option whose value is refused."""
    try:
        return model(**values)
    except ValidationError as error:
        raise refused_option(error) from error


def _is_model(hint: Any) -> bool:
    return isinstance(hint, type) and (issubclass(hint, BaseModel) or dataclasses.is_dataclass(hint))


def _union_members(hint: Any) -> list[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        return [kind for kind in get_args(hint) if kind is not type(None)]
    return [hint]


def _item_of_list(hint: Any) -> Any:
    """X of ``list[X]``, ``tuple[X, ...]`` and ``Sequence[X]``, with or without ``| None``, else None."""
    members = _union_members(hint)
    if len(members) != 1:
        return None
    origin, items = get_origin(members[0]), get_args(members[0])
    if origin is tuple:
        return items[0] if len(items) == 2 and items[1] is Ellipsis else None
    return items[0] if origin in LISTS else None


def _is_tuple(hint: Any) -> bool:
    return get_origin(_union_members(hint)[0]) is tuple


def _folder_kind(hint: Any) -> Any:
    """The folder that stands for a hint, for a list of it, or for it or None; else None."""
    inner = _item_of_list(hint) or hint
    kinds = (DatasetFolder, RunFolder, DecoderFolder)
    return next((kind for kind in _union_members(inner) if kind in kinds), None)


def _on_command_line(hint: Any) -> Any:
    """The type that a word is parsed as: folders for datasets and runs."""
    if _folder_kind(hint) is None:
        words = [kind for kind in _union_members(hint) if not _is_model(kind)]
        return str if words == [str] and len(_union_members(hint)) > 1 and len(get_args(hint)) == 2 else hint
    if _item_of_list(hint) is not None:
        return list[Path] | None if type(None) in get_args(hint) else list[Path]
    return Path | None if type(None) in get_args(hint) else Path


def _on_command_line_value(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump()
    return list(value) if isinstance(value, tuple) else value


def _each(value: Any, do: Callable[[Any], Any]) -> Any:
    return [do(item) for item in value] if isinstance(value, (list, tuple)) else do(value)


def shown_word(option: Option) -> str:
    name = "RUN" if _folder_kind(option.hint) is RunFolder else option.key.upper()
    if _item_of_list(option.hint) is not None:
        name += " [...]"
    return name if option.default is REQUIRED else f"[{name}]"
