"""Converts configs to plain data, with which a run is recorded, and back."""

import dataclasses
import types
import typing
from typing import Any, TypeVar

from pir_jax.types import InputError

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
  """Converts a config dataclass to nested dicts of JSON values."""
  return dataclasses.asdict(config)


def from_dict(kind: type[T], values: dict[str, Any], path: str = "config") -> T:
  """Builds the config dataclass `kind` from the result of `to_dict`.

  Raises:
    InputError: a field is unknown, by its whole path: the run was written by
      another version.
  """
  hints = typing.get_type_hints(kind)
  unknown = sorted(set(values) - set(hints))
  if unknown:
    raise InputError(
      f"{path} has no field {', '.join(unknown)}: it was written by another "
      "version of pir_jax; train again or use that version."
    )
  return kind(
    **{
      name: _value(hints[name], value, f"{path}.{name}")
      for name, value in values.items()
    }
  )


def _value(hint: Any, value: Any, path: str) -> Any:
  if isinstance(hint, types.UnionType):  # `X | None`: the one that fits.
    if value is None:
      return None
    hint = next(h for h in typing.get_args(hint) if h is not type(None))
  if dataclasses.is_dataclass(hint):
    return from_dict(hint, value, path)
  if typing.get_origin(hint) is tuple:
    # Of one kind throughout, as all of ours: tuple[int, ...], tuple[str, str].
    kind = typing.get_args(hint)[0]
    return tuple(_value(kind, item, path) for item in value)
  return value
