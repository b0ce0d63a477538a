"""A typed function as a command: its signature gives the options, its docstring the help."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, get_args, get_origin, get_type_hints

from docstring_parser import parse as parse_docstring
from jsonargparse import ActionConfigFile, ArgumentParser

from synbrain.errors import SynBrainError


def run_function(function: Callable[..., Any], name: str, words: list[str]) -> Any:
    """Parse ``words`` against the signature of ``function`` and call it.

    Parameters without a default are positional unless they are keyword-only; a positional-only one with a
    default may be left out; ``list[X]`` takes several words; a ``bool`` is a flag; a pydantic config becomes
    nested options (``--vae.lr``); ``--config`` reads any of them from YAML, unless the function has a
    ``config`` of its own. Option names may be written with dashes or underscores.

    Raises:
        SynBrainError: for a negative ``seed``, which no generator takes.
    """
    given = parse_words(function, name, words)
    if isinstance(given.get("seed"), int) and given["seed"] < 0:
        raise SynBrainError(f"--seed {given['seed']}", "give a whole number from 0 on")
    parameters = inspect.signature(function).parameters
    by_place = [given.pop(key) for key, p in parameters.items() if p.kind is p.POSITIONAL_ONLY]
    return function(*by_place, **given)


def parse_words(function: Callable[..., Any], name: str, words: list[str]) -> dict[str, Any]:
    """The arguments that ``words`` give ``function``, by name."""
    parser, plain = _parser(function, name)
    parsed = parser.parse_args([_underscored(word) for word in words])
    values = parser.instantiate(parsed)
    names = inspect.signature(function).parameters
    given = {key: values[key] for key in names if key in values}
    return {k: plain[k](v) if k in plain and v is not None else v for k, v in given.items()}


class _DashedParser(ArgumentParser):
    """Shows option names with dashes, as the documentation writes them; both are understood."""

    def format_help(self, *given: Any, **named: Any) -> str:  # older jsonargparse passes no formatter
        return _dashed(super().format_help(*given, **named))

    def format_usage(self) -> str:
        return _dashed(super().format_usage())


def _dashed(text: str) -> str:
    return re.sub(r"--[a-z][\w.]*", lambda option: option[0].replace("_", "-"), text)


def _underscored(word: str) -> str:
    if not word.startswith("--"):
        return word
    option, equals, value = word.partition("=")
    return "--" + option[2:].replace("-", "_") + equals + value


def _word_of_list(hint: Any) -> Any:
    """X of ``list[X]`` and of ``list[X] | None``, else None."""
    kinds = [kind for kind in (get_args(hint) or ()) if kind is not type(None)]
    if get_origin(hint) is list:
        return kinds[0]
    is_optional = type(None) in get_args(hint) and len(kinds) == 1 and get_origin(kinds[0]) is list
    return get_args(kinds[0])[0] if is_optional else None


def _parser(function: Callable[..., Any], name: str) -> tuple[ArgumentParser, dict[str, Any]]:
    doc = parse_docstring(function.__doc__ or "")
    help_of = {entry.arg_name: entry.description for entry in doc.params}
    parser = _DashedParser(prog=f"synbrain {name}", description=doc.short_description)
    if "config" not in inspect.signature(function).parameters:
        parser.add_argument("--config", action=ActionConfigFile, help="YAML file with any of the options")
    hints = get_type_hints(function)
    by_hand: set[str | int] = set()
    plain: dict[str, Any] = {}
    for key, parameter in inspect.signature(function).parameters.items():
        required = parameter.default is inspect.Parameter.empty
        keyword = parameter.kind is inspect.Parameter.KEYWORD_ONLY or not required
        if hints[key] is bool and parameter.default is False:
            parser.add_argument(f"--{key}", action="store_true", help=help_of.get(key))
        elif parameter.kind is inspect.Parameter.POSITIONAL_ONLY and not required:
            parser.add_argument(key, nargs="?", type=hints[key], default=None, help=help_of.get(key))
        elif (word := _word_of_list(hints[key])) is not None:
            options: dict[str, Any] = {"nargs": "+", "type": word}
            if keyword:
                options |= {"required": True} if required else {"default": parameter.default}
            parser.add_argument(f"--{key}" if keyword else key, help=help_of.get(key), **options)
            plain[key] = list
        else:
            continue
        by_hand.add(key)
    parser.add_function_arguments(function, skip=by_hand, as_positional=True, fail_untyped=True)
    return parser, plain
