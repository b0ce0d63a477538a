"""What the parser says and reads, in the words of users: dashes, plain sentences."""

from __future__ import annotations

import re
from argparse import SUPPRESS, Action
from collections.abc import Collection
from typing import Any, Literal, get_args, get_origin

from jsonargparse import ActionConfigFile, DefaultHelpFormatter

OF_UNION = (
    r"Does not validate against any of the Union subtypes Subtypes: .*? Errors: - (.*?)(?: - .*)? "
    r"Given value type: \w+ Given value: (.*)"
)
PRINT_CONFIG = "print all options as YAML for --config, and stop"
ONE_VALUE = "set all of them from a YAML file or JSON text"


def plain_text(text: str) -> str:
    """A docstring's sentence without its markup, as one line; % is argparse's."""
    text = re.sub(r":\w+:`~?([^`]+)`", r"\1", " ".join(text.split()))
    return text.replace("``", "").replace("`", "").replace("%", "%%")


def in_plain_words(message: str, by_place: Collection[str] = ()) -> str:
    """jsonargparse's message in the words of the manual; ``by_place`` are given without a dash.

    >>> in_plain_words("the following arguments are required: run, known_data", ["run"])
    'missing: run, --known_data'
    """
    message = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", message)
    message = re.sub(r'^Parser key "([\w.]+)": ?', lambda key: f"--{key[1]}: ", message)
    message = re.sub(OF_UNION, r"\1, not \2", message)
    for kind, words in (("int", "a whole number"), ("float", "a number"), ("bool", "true or false")):
        message = re.sub(rf"Expected (an? )?{kind}\b", f"expected {words}", message)
    message = re.sub(
        r"Expected a typing.Literal\[([^]]+)\]",
        lambda values: f"expected {values[1].replace(chr(39), '').replace(', ', ' or ')}",
        message,
    )
    message = re.sub(
        r"the following arguments are required: (.*)",
        lambda names: (
            "missing: "
            + ", ".join(name if name in by_place else f"--{name}" for name in names[1].split(", "))
        ),
        message,
    )
    return re.sub(r"\. Got value: (.*)", r", not \1", message)


def dashed(text: str) -> str:
    return re.sub(r"--[a-z][\w.]*", lambda option: option[0].replace("_", "-"), text)


def underscored(word: str) -> str:
    if not word.startswith("--"):
        return word
    option, equals, value = word.partition("=")
    return "--" + option[2:].replace("-", "_") + equals + value


def choices_of(hint: Any) -> tuple[str, ...]:
    """The words that an option of this type takes; none where it takes others too.

    >>> from typing import Literal
    >>> choices_of(Literal["none", "subject"] | None), choices_of(str | None)
    (('none', 'subject'), ())
    """
    kinds = [kind for kind in get_args(hint) or () if kind is not type(None)]
    if get_origin(hint) is not Literal:
        return choices_of(kinds[0]) if len(kinds) == 1 and get_origin(kinds[0]) is Literal else ()
    return tuple(word for word in get_args(hint) if isinstance(word, str))


class HelpFormatter(DefaultHelpFormatter):
    """Help with the default beside each option, without Python's type names."""

    def _get_default_metavar_for_optional(self, action: Action) -> str:
        words = choices_of(getattr(action, "_typehint", None))
        metavar: str = super()._get_default_metavar_for_optional(action)
        return f"{{{','.join(words)}}}" if words else metavar

    def _expand_help(self, action: Action) -> str:
        return super()._expand_help(action).replace("%%", "%")  # jsonargparse's template leaves it

    def _get_help_string(self, action: Action) -> str:
        text = action.help or ""
        default = action.default
        if text.startswith("Show this help"):
            return "show this help"
        if text.startswith("Path to a configuration file"):
            return ONE_VALUE
        if text.startswith("Print the configuration"):
            return PRINT_CONFIG
        shown = default not in (None, SUPPRESS, False) and bool(action.option_strings)
        if shown and not isinstance(action, ActionConfigFile):
            if isinstance(default, (list, tuple)):
                default = " ".join(map(str, default))
            text += f"{' ' if text else ''}(default: {str(default).replace('%', '%%')})"
        return text

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("example:"):
            return text
        fill = super()._fill_text
        return "\n\n".join(fill(paragraph, width, indent) for paragraph in text.split("\n\n"))
