"""A run's config survives being written down."""

import dataclasses
import json

import pytest

from pir_jax.runtime import config_io
from pir_jax.types import InputError


@dataclasses.dataclass(kw_only=True, slots=True)
class Inner:
  sizes: tuple[int, ...] = (1, 2)
  limit: int | None = None
  rules: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(kw_only=True, slots=True)
class Outer:
  inner: Inner = dataclasses.field(default_factory=Inner)
  name: str = "x"


def test_json_round_trip():
  config = Outer(
    inner=Inner(sizes=(3,), limit=4, rules=(("a", "b"),)), name="y"
  )
  values = json.loads(json.dumps(config_io.to_dict(config)))
  assert config_io.from_dict(Outer, values) == config


def test_unknown_field_is_named_by_its_path():
  with pytest.raises(InputError, match=r"config\.inner has no field sise"):
    config_io.from_dict(Outer, {"inner": {"sise": [1]}})
