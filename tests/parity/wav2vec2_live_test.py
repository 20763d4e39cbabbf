"""Our wav2vec 2.0 beside transformers' PyTorch network, on random weights.

Raw speech of two lengths goes through the published feature extractor and
network, and through ours, loaded from what `save_pretrained` wrote.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pir_jax.models import wav2vec2
from pir_jax.pretrained import wav2vec2 as convert

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.torch

FAMILIES = ("group", "layer")
SMALL = dict(
  hidden_size=32,
  num_hidden_layers=2,
  num_attention_heads=4,
  intermediate_size=48,
  conv_dim=[16] * 7,
  num_conv_pos_embeddings=16,
  num_conv_pos_embedding_groups=4,
  # Not the default, which the norms between convolutions keep.
  layer_norm_eps=1e-3,
)
LARGE = dict(
  hidden_size=1024,
  num_hidden_layers=24,
  num_attention_heads=16,
  intermediate_size=4096,
)
# Of the greatest value: float32 sums through 24 layers, in another order.
TOLERANCE = 1e-4


def published(family, sizes, noise):
  """The PyTorch network; noise, so that no bias is 0 and no gain 1."""
  torch.manual_seed(0)
  layer = family == "layer"
  config = transformers.Wav2Vec2Config(
    feat_extract_norm=family,
    do_stable_layer_norm=layer,
    conv_bias=layer,
    **sizes,
  )
  model = transformers.Wav2Vec2Model(config).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.add_(noise * torch.randn_like(parameter))
  return model


def compare(model, folder, masked, num_samples):
  """Greatest relative error on true frames, ours read from `folder`."""
  extractor = transformers.Wav2Vec2FeatureExtractor(
    return_attention_mask=masked
  )
  extractor.save_pretrained(folder)
  random = np.random.default_rng(0)
  lengths = num_samples, num_samples * 5 // 8
  speech = [random.normal(0.2, 1.0, n).astype(np.float32) for n in lengths]
  given = extractor(
    speech, sampling_rate=16000, padding=True, return_tensors="pt"
  )
  with torch.no_grad():
    want = model(**given).last_hidden_state.numpy()
  ours = convert.load(str(folder))
  assert ours.config.padding == ("masked" if masked else "silence")
  graphdef, state = nnx.split(ours)
  waveform = np.stack([np.pad(x, (0, num_samples - len(x))) for x in speech])
  got = jax.jit(lambda s, x, n: nnx.merge(graphdef, s)(x, lengths=n))(
    state, jnp.asarray(waveform), jnp.array(lengths)
  )
  assert got.shape == want.shape
  errors = []
  for row, length in enumerate(lengths):
    true = wav2vec2.num_conv_frames(length, ours.config)
    errors.append(np.abs(got[row, :true] - want[row, :true]).max())
  return max(errors) / np.abs(want).max()


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_small_network_equals_the_published_one(tmp_path, family, masked):
  model = published(family, SMALL, 0.1)
  model.save_pretrained(tmp_path)
  error = compare(model, tmp_path, masked, 6400)
  print(f"small {family} masked={masked}: {error:.1e}")
  assert error <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_large_network_equals_the_published_one(tmp_path, family):
  model = published(family, LARGE, 0.01)
  model.save_pretrained(tmp_path, max_shard_size="500MB")
  assert (tmp_path / convert.WEIGHTS[1]).is_file()
  for masked in (True, False):
    error = compare(model, tmp_path, masked, 32_000)
    print(f"large {family} masked={masked}: {error:.1e}")
    assert error <= TOLERANCE


def same(one, other):
  """Whether two networks have the same parameters."""
  leaves = [jax.tree.leaves(nnx.state(model)) for model in (one, other)]
  return all(map(np.array_equal, *leaves))


@pytest.mark.parametrize("family", FAMILIES)
def test_all_ways_of_saving_give_the_same_weights(tmp_path, family):
  model = published(family, SMALL, 0.1)
  config = convert.config_from_json(model.config.to_dict())
  state_dict = {name: x.numpy() for name, x in model.state_dict().items()}
  want = convert.from_torch(state_dict, config)
  for name, size in (("whole", "1GB"), ("parts", "60KB")):
    model.save_pretrained(tmp_path / name, max_shard_size=size)
    assert same(convert.load(str(tmp_path / name)), want)
  assert (tmp_path / "parts" / convert.WEIGHTS[1]).is_file()
  (tmp_path / "whole" / convert.WEIGHTS[0]).unlink()
  torch.save(model.state_dict(), tmp_path / "whole" / convert.WEIGHTS[2])
  assert same(convert.load(str(tmp_path / "whole")), want)


def test_code_in_a_pickle_is_not_run(tmp_path):
  published("group", SMALL, 0.1).config.save_pretrained(tmp_path)
  torch.save({"a": pytest.fail}, tmp_path / convert.WEIGHTS[2])
  with pytest.raises(convert.InputError, match="no state dict"):
    convert.load(str(tmp_path))
