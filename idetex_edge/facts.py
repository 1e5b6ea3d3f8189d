"""Reading dataclasses of facts from JSON, strictly."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import MISSING
from typing import (
    TYPE_CHECKING,
    Any,
    TypeVar,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from idetex_edge.errors import BundleError
from idetex_edge.preprocess import Preprocessor
from idetex_edge.prompts import PromptSet

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Facts = TypeVar("_Facts")


def read_facts(cls: type[_Facts], data: object, where: str) -> _Facts:
    """Build a facts dataclass from JSON: exactly its fields, each of exactly its type.

    Only fields with a default may be missing. Raises BundleError that names the field, `where` in
    front.
    """
    hints = get_type_hints(cls)
    fields = dataclasses.fields(cast("type[DataclassInstance]", cls))
    needed = {f.name for f in fields if f.default is MISSING and f.default_factory is MISSING}
    have = set(data) if isinstance(data, dict) else set[str]()
    if not isinstance(data, dict) or not needed <= have <= set(hints):
        odd = sorted((needed - have) | (have - set(hints)))
        raise BundleError(f"{where} has missing or unknown fields: {', '.join(odd) or data!r}")
    return cls(**{name: _value(hints[name], data[name], f"{where}.{name}") for name in data})


def _value(hint: object, value: object, where: str) -> object:
    if hint is PromptSet:
        return PromptSet.from_dict(value)
    if hint is Preprocessor and isinstance(value, dict):
        return Preprocessor.from_dict(value)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return read_facts(hint, value, where)
    origin, args = get_origin(hint), get_args(hint)
    if origin is tuple and isinstance(value, list):
        return tuple(_value(args[0], item, where) for item in value)
    if origin is dict and isinstance(value, Mapping):
        return {str(key): _value(args[1], item, f"{where}.{key}") for key, item in value.items()}
    if hint is Any:
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise BundleError(f"{where} is {value!r}, which is not of the expected type")
