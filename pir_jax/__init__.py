"""Audio-driven reenactment with a parametric implicit face, in JAX.

The names below are looked up when they are first used: importing the package
imports no JAX.
"""

import sys
from importlib import import_module, metadata
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from pir_jax.data.dataset import Clip
  from pir_jax.evaluation.reenactment import evaluate
  from pir_jax.inference.live import stream
  from pir_jax.inference.opening import load
  from pir_jax.inference.person import Person
  from pir_jax.inference.reenactor import reenact
  from pir_jax.preparation.clip import prepare
  from pir_jax.types import (
    FRAME_RATE,
    SAMPLE_RATE,
    Cameras,
    FaceSpace,
    InputError,
  )

  __version__: str

__all__ = [
  "FRAME_RATE",
  "SAMPLE_RATE",
  "Cameras",
  "Clip",
  "FaceSpace",
  "InputError",
  "Person",
  "__version__",
  "evaluate",
  "load",
  "prepare",
  "reenact",
  "stream",
]
_HOMES = {
  "evaluate": "evaluation.reenactment",
  "Person": "inference.person",
  "load": "inference.opening",
  "reenact": "inference.reenactor",
  "stream": "inference.live",
  "Clip": "data.dataset",
  "prepare": "preparation.clip",
}


class _Package(ModuleType):
  """The package, whose functions win over the commands of the same names."""

  def __setattr__(self, name: str, value: Any) -> None:
    # Python binds a submodule in its package once it is imported: without this
    # `import pir_jax.prepare` would replace pir_jax.prepare, the function.
    if name not in __all__ or not isinstance(value, ModuleType):
      super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
  if name not in __all__:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  if name == "__version__":
    value = metadata.version(__name__)
  else:
    home = import_module(f"{__name__}.{_HOMES.get(name, 'types')}")
    value = getattr(home, name)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  return __all__
