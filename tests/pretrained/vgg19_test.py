"""torchvision's VGG19 by its published names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pir_jax.models import vgg
from pir_jax.pretrained import vgg19
from pir_jax.types import InputError

_FIRST = {0: (64, 3), 2: (64, 64), 5: (128, 64)}


def _state(places=_FIRST):
  rng = np.random.default_rng(0)
  state = {}
  for place, (num_out, num_in) in places.items():
    kernel = rng.normal(0, 0.1, (num_out, num_in, 3, 3))
    state[f"features.{place}.weight"] = np.float32(kernel)
    state[f"features.{place}.bias"] = np.float32(rng.normal(size=num_out))
  state["classifier.0.weight"] = np.zeros((2, 2), np.float32)
  return state


def test_taps_are_the_first_convolution_of_each_block():
  features = jax.eval_shape(
    lambda x: vgg.Vgg19(rngs=nnx.Rngs(0)).features(x),
    jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32),
  )
  assert [(f.shape[1], f.shape[-1]) for f in features] == [
    (64, 64),
    (32, 128),
    (16, 256),
    (8, 512),
    (4, 512),
  ]


def test_the_first_tap_is_the_first_convolution_of_the_image_itself(tmp_path):
  state = _state()
  path = tmp_path / "vgg19.npz"
  np.savez(path, **state)
  model = vgg19.load(path, num_layers=2)
  image = np.random.default_rng(1).uniform(-1, 1, (1, 8, 8, 3))
  first, second = model.features(jnp.asarray(image, jnp.float32))
  assert first.shape == (1, 8, 8, 64) and second.shape == (1, 4, 4, 128)
  # One pixel by hand: no normalisation, relu after.
  patch = np.moveaxis(image[0, 2:5, 3:6], -1, 0)
  want = (state["features.0.weight"] * patch).sum((1, 2, 3))
  want = np.maximum(want + state["features.0.bias"], 0)
  np.testing.assert_allclose(first[0, 3, 4], want, atol=1e-5)


def test_another_networks_file_is_told_in_one_sentence(tmp_path):
  path = tmp_path / "vgg16.npz"
  np.savez(path, **_state({0: (64, 3), 3: (64, 64)}))
  with pytest.raises(ValueError, match="layers.1.kernel"):
    vgg19.load(path, num_layers=2)
  with pytest.raises(InputError):
    vgg19.load(tmp_path / "none.pth", num_layers=2)
