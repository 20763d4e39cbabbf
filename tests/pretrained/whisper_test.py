"""A CTranslate2 file is read to the byte and lands where it should."""

import struct

import jax.numpy as jnp
import numpy as np
import pytest

from pir_jax.pretrained import whisper as convert
from pir_jax.types import InputError

TYPES = {"float32": 0, "int8": 1, "float16": 4}


def write(path, variables):
  """The format written by hand."""
  data = struct.pack("<IH", 6, 12) + b"WhisperSpec\0"
  data += struct.pack("<II", 3, len(variables))
  for name, array in variables.items():
    data += struct.pack("<H", len(name) + 1) + name.encode() + b"\0"
    data += struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
    data += struct.pack("<BI", TYPES[str(array.dtype)], array.nbytes)
    data += array.tobytes()
  path.write_bytes(data)


def small():
  """Names and layouts of an encoder with 2 layers of 4 channels."""
  shapes = {
    "conv1/weight": (4, 80, 3),
    "conv1/bias": (4,),
    "conv2/weight": (4, 4, 3),
    "conv2/bias": (4,),
    "position_encodings/encodings": (9, 4),
    "layer_norm/gamma": (4,),
    "layer_norm/beta": (4,),
  }
  for i in range(2):
    for part, inner, outer in (("self_attention", 12, 4), ("ffn", 6, 6)):
      stem = f"layer_{i}/{part}/"
      shapes |= {
        stem + "layer_norm/gamma": (4,),
        stem + "layer_norm/beta": (4,),
        stem + "linear_0/weight": (inner, 4),
        stem + "linear_0/bias": (inner,),
        stem + "linear_1/weight": (4, outer),
        stem + "linear_1/bias": (4,),
      }
  rng = np.random.default_rng(0)
  variables = {
    "encoder/" + name: rng.normal(size=shape).astype(np.float16)
    for name, shape in shapes.items()
  }
  variables["encoder/num_heads"] = np.array(2, np.int8)
  variables["decoder/embeddings/weight"] = np.zeros((3, 4), np.float16)
  return variables


def test_reads_what_was_written(tmp_path):
  write(tmp_path / "model.bin", small())
  read = convert.read(tmp_path / "model.bin")
  assert list(read) == list(small())
  for name, array in small().items():
    np.testing.assert_array_equal(read[name], array)
    assert read[name].shape == array.shape


def test_builds_the_encoder_of_the_file(tmp_path):
  variables = small()
  write(tmp_path / "model.bin", variables)
  model = convert.load(tmp_path / "model.bin")
  config = model.config
  assert (config.width, config.num_heads, config.num_layers) == (4, 2, 2)
  assert (config.ffn, config.max_frames, config.num_mels) == (6, 9, 80)
  np.testing.assert_array_equal(
    model.conv1.kernel[...],
    variables["encoder/conv1/weight"].astype(np.float32).transpose(2, 1, 0),
  )
  np.testing.assert_array_equal(
    model.layers[1].qkv.kernel[...],
    variables["encoder/layer_1/self_attention/linear_0/weight"].T,
  )
  assert np.isfinite(model(jnp.ones((1, 1600)))).all()


def test_a_missing_weight_is_named():
  variables = small()
  del variables["encoder/layer_1/ffn/linear_1/weight"]
  with pytest.raises(ValueError, match="layers.1.contract.kernel"):
    convert.from_variables(variables)


def test_absent_and_broken_files_are_said(tmp_path):
  path = tmp_path / "model.bin"
  with pytest.raises(InputError, match="no Whisper weights at"):
    convert.load(path)
  write(path, small())
  path.write_bytes(path.read_bytes()[:-100])
  with pytest.raises(InputError, match="not a whole CTranslate2 model file"):
    convert.load(path)
