"""Published wav2vec 2.0 numbers come out of our encoder; files are found.

The goldens are transformers' Wav2Vec2Model at tiny sizes with random weights.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors import numpy as safetensors

from pir_jax.convert import wav2vec2 as convert
from pir_jax.models import wav2vec2
from pir_jax.types import InputError

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
# Outputs reach 3.5; float32 measured 3e-6.
TOLERANCE = 3e-5


def golden(family):
  with np.load(GOLDENS / f"wav2vec2_{family}.npz") as file:
    arrays = dict(file)
  weights = {
    name.removeprefix("param/"): array
    for name, array in arrays.items()
    if name.startswith("param/")
  }
  return arrays, weights, json.loads(arrays["config"].tobytes())


def build(family):
  arrays, weights, values = golden(family)
  config = convert.config_from_json(values)
  config.normalize = False  # The reference was given samples as they are.
  return arrays, convert.from_torch(weights, config)


def run(model, function):
  """function(model), compiled: sooner done than operation by operation."""
  graphdef, state = nnx.split(model)
  return jax.jit(lambda s: function(nnx.merge(graphdef, s)))(state)


@pytest.mark.parametrize("family", ["group", "layer"])
def test_equals_the_published_network(family):
  arrays, model = build(family)
  waveform = jnp.asarray(arrays["in/waveform"])
  got = run(
    model,
    lambda m: {
      "convolved": m.features(waveform, jnp.full(2, waveform.shape[1])),
      "features": m(waveform),
      # Resampled to 10 frames before the transformer.
      "resampled": m(waveform, 10),
    },
  )
  for name, value in got.items():
    np.testing.assert_allclose(
      value, arrays[f"out/{name}"], atol=TOLERANCE, err_msg=name
    )


def test_padded_batch_equals_the_published_attention_mask():
  arrays, model = build("layer")
  lengths = jnp.array([6400, 4000])
  waveform = jnp.asarray(arrays["in/waveform"])
  got = run(model, lambda m: m(waveform, lengths=lengths))
  for row, length in enumerate(lengths):
    true = int(wav2vec2.num_conv_frames(length, model.config))
    np.testing.assert_allclose(
      got[row, :true], arrays["out/padded"][row, :true], atol=TOLERANCE
    )


def test_every_mismatch_is_named():
  _, weights, values = golden("group")
  del weights["encoder.layers.1.attention.q_proj.weight"]
  weights["encoder.layers.7.attention.q_proj.weight"] = np.zeros((2, 2))
  with pytest.raises(ValueError) as error:
    convert.from_torch(weights, convert.config_from_json(values))
  assert "layers.1.query.kernel" in str(error.value)
  assert "encoder.layers.7.attention.q_proj.weight" in str(error.value)


def write(folder):
  _, weights, values = golden("layer")
  folder.mkdir(parents=True)
  (folder / "config.json").write_text(json.dumps(values))
  # As in a file with a recognition head.
  named = {f"wav2vec2.{name}": array for name, array in weights.items()}
  named["lm_head.weight"] = np.zeros((3, 32), np.float32)
  safetensors.save_file(named, folder / "model.safetensors")


def test_loads_a_folder_and_the_hugging_face_cache(tmp_path, monkeypatch):
  write(tmp_path / "plain")
  write(tmp_path / "hub/models--some--model/snapshots/abc")
  monkeypatch.delenv("HF_HUB_CACHE", raising=False)
  monkeypatch.setenv("HF_HOME", str(tmp_path))
  arrays, model = build("layer")
  want = model.projection.kernel[...]
  for name in (str(tmp_path / "plain"), "some/model"):
    got = convert.load(name)
    np.testing.assert_array_equal(got.projection.kernel[...], want)
    assert got.config.pre_norm and got.config.normalize


def test_what_is_missing_is_said(tmp_path, monkeypatch):
  monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
  with pytest.raises(InputError, match="model.safetensors of some/model in "):
    convert.load("some/model")
  (tmp_path / "config.json").write_text("{}")
  with pytest.raises(InputError, match="has no model.safetensors"):
    convert.load(str(tmp_path))
  with pytest.raises(InputError, match="hubert model"):
    convert.config_from_json({"model_type": "hubert"})
  with pytest.raises(InputError, match="only gelu"):
    convert.config_from_json({"hidden_act": "relu"})
