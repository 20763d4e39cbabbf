"""The published decoder's numbers come out of our decoder."""

import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from pir_jax.models import faceformer
from pir_jax.pretrained import faceformer as convert

GOLDEN = pathlib.Path(__file__).parents[1] / "goldens/faceformer_decoder.npz"
CONFIG = faceformer.Config(
  identity_size=10, expression_size=12, audio_size=48, width=64, ffn=128
)


@pytest.fixture(scope="module")
def golden():
  with np.load(GOLDEN) as file:
    return dict(file)


def weights(golden):
  prefix = "param/"
  return {
    name.removeprefix(prefix): array
    for name, array in golden.items()
    if name.startswith(prefix)
  }


def test_both_modes_equal_the_published_network(golden):
  model = convert.from_torch(weights(golden))
  audio, identity, expression = (
    jnp.asarray(golden[f"in/{name}"])
    for name in ("audio_features", "identity", "expression")
  )
  # Values reach 3.6; float32 over 60 frames fed back measured 1.2e-6.
  np.testing.assert_allclose(
    model.generate(audio, identity), golden["out/autoregressive"], atol=1e-5
  )
  np.testing.assert_allclose(
    model.teacher_forced(audio, identity, expression),
    golden["out/teacher_forced"],
    atol=1e-5,
  )


def test_sizes_come_from_the_shapes(golden):
  assert convert.from_torch(weights(golden)).config == CONFIG


def test_positions_equal_the_published_table(golden):
  positions = faceformer.periodic_positions(jnp.arange(60), width=64, period=25)
  # A sine of a float32 phase of up to 24.
  np.testing.assert_allclose(
    positions, golden["out/positional_encoding"], atol=3e-6
  )


@pytest.mark.parametrize("config", [CONFIG, None])
def test_every_mismatch_is_named(golden, config):
  state_dict = weights(golden)
  del state_dict["obj_vector.weight"]
  state_dict["surprise"] = np.zeros(3)
  with pytest.raises(ValueError) as error:
    convert.from_torch(state_dict, config)
  assert "style_map.kernel" in str(error.value)
  assert "surprise" in str(error.value)
