"""Published wav2vec 2.0 numbers come out of our encoder; files are found.

The goldens are transformers' Wav2Vec2Model at tiny sizes with random weights.
"""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from flax import nnx
from safetensors import numpy as safetensors

from pir_jax.models import wav2vec2
from pir_jax.pretrained import wav2vec2 as convert
from pir_jax.types import InputError

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
FAMILIES = ("group", "layer")
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


def build(family, padding="excluded"):
  arrays, weights, values = golden(family)
  config = convert.config_from_json(values)
  config.padding = padding
  return arrays, convert.from_torch(weights, config)


def run(model, function):
  """function(model), compiled: sooner done than operation by operation."""
  graphdef, state = nnx.split(model)
  return jax.jit(lambda s: function(nnx.merge(graphdef, s)))(state)


@pytest.mark.parametrize("family", FAMILIES)
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


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("padding", ["masked", "silence"])
def test_padded_batch_equals_the_published_network(family, padding):
  """With an attention mask, and without one: zeros that are heard."""
  arrays, model = build(family, padding)
  lengths = jnp.array([6400, 4000])
  # Noise in the padding: what it holds must not matter.
  waveform = jnp.asarray(arrays["in/waveform"])
  got = run(model, lambda m: m(waveform, lengths=lengths))
  want = arrays["out/padded" if padding == "masked" else "out/silence"]
  for row, length in enumerate(lengths):
    true = int(wav2vec2.num_conv_frames(length, model.config))
    np.testing.assert_allclose(
      got[row, :true], want[row, :true], atol=TOLERANCE
    )


@pytest.mark.parametrize("masked", [True, False])
def test_raw_speech_equals_the_published_feature_extractor(masked):
  lengths = 6400, 4000
  random = np.random.default_rng(0)
  speech = [random.normal(0.3, 2.0, n).astype(np.float32) for n in lengths]
  given = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=masked)(
    speech, sampling_rate=16000, padding=True, return_tensors="np"
  )
  padding = "masked" if masked else "silence"
  _, ours = build("group", padding)
  _, plain = build("group", padding)
  ours.config.normalize = True
  waveform = np.stack([np.pad(x, (0, 6400 - len(x))) for x in speech])
  got = run(
    ours, lambda m: m(jnp.asarray(waveform), lengths=jnp.array(lengths))
  )
  # Without a mask theirs pads first and normalises the padding too.
  counts = jnp.array(lengths) if masked else None
  want = run(
    plain, lambda m: m(jnp.asarray(given["input_values"]), lengths=counts)
  )
  # Means of 6400 samples are rounded in another order.
  np.testing.assert_allclose(got, want, atol=1e-4)


def test_every_mismatch_is_named():
  _, weights, values = golden("group")
  del weights["encoder.layers.1.attention.q_proj.weight"]
  weights["encoder.layers.7.attention.q_proj.weight"] = np.zeros((2, 2))
  with pytest.raises(ValueError) as error:
    convert.from_torch(weights, convert.config_from_json(values))
  assert "layers.1.query.kernel" in str(error.value)
  assert "encoder.layers.7.attention.q_proj.weight" in str(error.value)


def named_weights():
  """A state dict as in a file with a recognition head."""
  _, weights, _ = golden("layer")
  named = {f"wav2vec2.{name}": array for name, array in weights.items()}
  return {**named, "lm_head.weight": np.zeros((3, 32), np.float32)}


def write(folder, preprocessor=None):
  folder.mkdir(parents=True)
  values = golden("layer")[2]
  (folder / "config.json").write_text(json.dumps(values))
  if preprocessor is not None:
    text = json.dumps(preprocessor)
    (folder / "preprocessor_config.json").write_text(text)
  safetensors.save_file(named_weights(), folder / "model.safetensors")
  return folder


def test_loads_a_folder_and_the_hugging_face_cache(tmp_path, monkeypatch):
  write(tmp_path / "plain")
  write(tmp_path / "hub/models--some--model/snapshots/abc")
  monkeypatch.delenv("HF_HUB_CACHE", raising=False)
  monkeypatch.setenv("HF_HOME", str(tmp_path))
  _, model = build("layer")
  want = model.projection.kernel[...]
  for name in (str(tmp_path / "plain"), "some/model"):
    got = convert.load(name)
    np.testing.assert_array_equal(got.projection.kernel[...], want)
    assert got.config.pre_norm and got.config.normalize
    assert got.config.padding == "excluded"


def test_loads_weights_in_several_files(tmp_path):
  whole = convert.load(str(write(tmp_path / "whole")))
  folder = write(tmp_path / "parts")
  (folder / "model.safetensors").unlink()
  weights = named_weights()
  names = sorted(weights)
  files = [f"model-0000{i + 1}-of-00002.safetensors" for i in range(2)]
  for i, file in enumerate(files):
    part = {name: weights[name] for name in names[i::2]}
    safetensors.save_file(part, folder / file)
  index = {name: files[i % 2] for i, name in enumerate(names)}
  text = json.dumps({"metadata": {}, "weight_map": index})
  (folder / "model.safetensors.index.json").write_text(text)
  got = convert.load(str(folder))
  for one, other in zip(
    jax.tree.leaves(nnx.state(got)),
    jax.tree.leaves(nnx.state(whole)),
    strict=True,
  ):
    np.testing.assert_array_equal(one, other)
  (folder / files[1]).unlink()
  with pytest.raises(InputError, match=f"names {files[1]}, not in"):
    convert.load(str(folder))


def test_a_pickle_is_read_with_torch_or_the_fix_is_named(tmp_path, monkeypatch):
  folder = write(tmp_path / "model")
  (folder / "model.safetensors").unlink()
  (folder / "pytorch_model.bin").write_bytes(b"")
  monkeypatch.setitem(sys.modules, "torch", None)
  with pytest.raises(InputError, match="only be read with torch: `pip"):
    convert.load(str(folder))


def test_the_published_preprocessor_is_followed(tmp_path):
  config = convert.read_config(
    write(
      tmp_path / "a", {"do_normalize": False, "return_attention_mask": True}
    )
  )
  assert not config.normalize and config.padding == "masked"
  config = convert.read_config(
    write(tmp_path / "b", {"return_attention_mask": False})
  )
  assert config.normalize and config.padding == "silence"
  with pytest.raises(InputError, match="speech at 8000 Hz: take"):
    convert.read_config(write(tmp_path / "c", {"sampling_rate": 8000}))


def test_without_transformers_the_fix_is_named(tmp_path, monkeypatch):
  folder = write(tmp_path / "model")
  monkeypatch.setitem(sys.modules, "transformers", None)
  with pytest.raises(InputError, match="pip install 'transformers"):
    convert.load(str(folder))


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
  with pytest.raises(InputError, match="refuses the config.*'hidden_size'"):
    convert.config_from_json({"hidden_size": "wide"})
  with pytest.raises(InputError, match="has adapters"):
    convert.config_from_json({"add_adapter": True})


def test_damaged_files_are_named(tmp_path):
  folder = write(tmp_path / "model")
  (folder / "model.safetensors").write_bytes(b"not weights")
  with pytest.raises(InputError, match="model.safetensors is damaged"):
    convert.load(str(folder))
  (folder / "config.json").write_text("{")
  with pytest.raises(InputError, match="config.json is not JSON"):
    convert.load(str(folder))
