"""Options that a user may leave to the recipe: the fields of a configuration, each None unless given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from synbrain.errors import refused_option

Config = TypeVar("Config", bound=BaseModel)


def options_of(config: type[BaseModel]) -> type[BaseModel]:
    """A model with the fields of ``config`` (nested ones included), where None means "not given".

    Names are checked at once (a typo is refused); values are checked when they are merged.
    """
    fields: dict[str, Any] = {}
    for name, info in config.model_fields.items():
        kind: Any = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            nested = options_of(kind)
            fields[name] = (nested, Field(nested(), description=info.description))
        else:
            fields[name] = (kind | None, Field(None, description=info.description))
    name = config.__name__.removesuffix("Config") + "Options"
    made: type[BaseModel] = create_model(
        name, __config__=ConfigDict(extra="forbid", frozen=True), __doc__=config.__doc__, **fields
    )
    return made


def overridden(config: Config, given: dict[str, Any]) -> Config:
    """``config`` with the values of ``given`` (nested; None means "not given") in place of its own.

    Raises:
        SynBrainError: naming the option whose value is refused.
    """
    merged = _merge(config.model_dump(), given)
    try:
        return type(config).model_validate(merged)
    except ValidationError as error:
        raise refused_option(error) from error


def _merge(base: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    out = dict(base)
    for key, value in given.items():
        if isinstance(value, BaseModel):
            value = value.model_dump()
        if isinstance(value, dict) and isinstance(base.get(key), dict) and base[key]:
            out[key] = _merge(base[key], value)
        elif value is not None:
            out[key] = value
    return out


def given_values(options: Mapping[str, Any]) -> dict[str, Any]:
    """The values that were given, nested; None means "not given"."""
    values = {
        key: given_values(value.model_dump() if isinstance(value, BaseModel) else value)
        if isinstance(value, BaseModel | dict)
        else value
        for key, value in options.items()
    }
    return {key: value for key, value in values.items() if value not in (None, {})}
