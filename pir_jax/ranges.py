"""Ranges of the values in a config: declared beside it, checked at the start.

Experiments' files, `--config.field=value` and the record of a run all bring
values from outside.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, get_args, get_origin

from pir_jax.types import ConfigError

Kind = TypeVar("Kind", bound=type)


class Range(NamedTuple):
  """All from `low` to `high`.

  Attributes:
    low, high: ends, which belong to it.
    above, below: unless the low (high) end is left out.
  """

  low: int | float
  high: int | float
  above: bool = False
  below: bool = False

  def __contains__(self, value: int | float) -> bool:
    """Returns whether a number lies in the range; NaN lies in none."""
    over = value > self.low if self.above else value >= self.low
    return over and (value < self.high if self.below else value <= self.high)

  def __str__(self) -> str:
    low = f"{'above' if self.above else 'at least'} {self.low:.10g}"
    return f"{low} and {'below' if self.below else 'at most'} {self.high:.10g}"


SIZE = Range(1, 2**16)
COUNT = Range(1, 2**31 - 1)
COUNT_OR_NONE = Range(0, 2**31 - 1)
NOT_NEGATIVE = Range(0, 1e6)
POSITIVE = Range(0, 1e6, above=True)
SHARE = Range(0, 1)
DECAY = Range(0, 1, below=True)


def declare(**exceptions: Range) -> Callable[[Kind], Kind]:
  """Declares the ranges of all values of a dataclass that are int or float.

  An int is a SIZE, or a COUNT_OR_NONE where it is 0 by default; a float is
  NOT_NEGATIVE. The range of a tuple is that of its items.

  Args:
    **exceptions: fields that are otherwise.
  """

  def decorate(kind: Kind) -> Kind:
    kind.RANGES = {}
    for field in dataclasses.fields(kind):
      hints = (field.type, *get_args(field.type))
      if int in hints or float in hints:
        usual = NOT_NEGATIVE
        if float not in hints:
          usual = COUNT_OR_NONE if field.default == 0 else SIZE
        kind.RANGES[field.name] = exceptions.pop(field.name, usual)
    if exceptions:
      raise TypeError(
        f"{kind.__name__} has no int or float {', '.join(exceptions)}"
      )
    return kind

  return decorate


def check(config: Any, path: str = "config") -> None:
  """Checks the types and ranges of a config, and of the configs within.

  Args:
    config: a dataclass with declared ranges.
    path: of it, for the message.

  Raises:
    ConfigError: the first field that is wrong: its path, value and range.
  """
  for field in dataclasses.fields(config):
    value, name = getattr(config, field.name), f"{path}.{field.name}"
    _check_type(name, value, field.type)
    if dataclasses.is_dataclass(value):
      check(value, name)
    elif field.name in config.RANGES and value is not None:
      limits = config.RANGES[field.name]
      items = value if isinstance(value, tuple) else (value,)
      if not all(item in limits for item in items):
        each = "each " if isinstance(value, tuple) else ""
        raise ConfigError(f"{name}={value!r}: {each}must be {limits}.")


def _check_type(name: str, value: Any, hint: Any) -> None:
  if get_origin(hint) is tuple:
    _check_tuple(name, value, get_args(hint))
    return
  kinds = get_args(hint) or (hint,)
  # A whole number is a float too; a bool is an int, and hardly ever meant.
  fits = isinstance(value, (*kinds, int) if float in kinds else kinds)
  if not fits or (isinstance(value, bool) and bool not in kinds):
    words = {int: "a whole number", float: "a number", str: "a text"}
    words |= {bool: "true or false", type(None): "None"}
    names = (
      words.get(k, f"a Config of {k.__module__.rpartition('.')[2]}")
      for k in kinds
    )
    raise ConfigError(f"{name}={value!r} must be {' or '.join(names)}.")


def _check_tuple(name: str, value: Any, kinds: tuple[Any, ...]) -> None:
  length = None if ... in kinds else len(kinds)
  if (
    not isinstance(value, tuple)
    or not value
    or (length not in (None, len(value)))
  ):
    much = "one item or more" if length is None else f"{length} items"
    raise ConfigError(f"{name}={value!r} must be a tuple of {much}.")
  for item in value:
    _check_type(name, item, kinds[0])
