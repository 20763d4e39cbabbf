"""Gradients by kernels against float64, for every shape the stages use."""

import jax
import numpy as np
import pytest

from experiments import inpainting, triplane
from pir_jax.ops import convolution
from pir_jax.profiling import abstract_stage
from pir_jax.runtime import sharding


def _shapes_in_use(monkeypatch):
  """Traces the image stages' steps, `:demo` and the paper's, in float32."""
  seen, real = set(), convolution._by_kernel

  def watched(x, gradient, size, stride, tiles):
    seen.add(((1, *x.shape[1:]), (1, *gradient.shape[1:]), size, stride, tiles))
    return real(x, gradient, size, stride, tiles)

  monkeypatch.setattr(convolution, "_by_kernel", watched)
  mesh = sharding.make_mesh(1, jax.devices()[:1])
  for file in triplane, inpainting:
    for variant in "demo", None:
      experiment = file.get_config(variant)
      experiment.data.batch_size, experiment.stage.dtype = 1, "float32"
      renderer = triplane.get_config(variant).stage.model
      stage = abstract_stage.make_stage(experiment, renderer, mesh)
      for step in stage.compiled:
        step.trace(*abstract_stage.arguments(experiment, stage))
  monkeypatch.undo()
  return sorted(seen)


@pytest.mark.slow
def test_gradients_of_shapes_in_use_are_the_sums(monkeypatch):
  shapes = _shapes_in_use(monkeypatch)
  assert len({stride for *_, stride, _ in shapes}) == 2
  assert {tiles for *_, tiles in shapes} == {False, True}
  random = np.random.default_rng(0)
  for x_shape, gradient_shape, size, stride, tiles in shapes:
    x, gradient = (
      random.standard_normal(shape, np.float32)
      for shape in (x_shape, gradient_shape)
    )
    got = jax.jit(convolution._by_kernel, static_argnums=(2, 3, 4))(
      x, gradient, size, stride, tiles
    )
    rows, columns = (stride * (n - 1) + 1 for n in gradient_shape[1:3])
    outputs = gradient.reshape(-1, gradient_shape[-1]).astype(np.float64)
    for r, c in np.ndindex(size):
      inputs = x[:, r : r + rows : stride, c : c + columns : stride]
      want = inputs.reshape(-1, x_shape[-1]).T.astype(np.float64) @ outputs
      # Ours are within 1.3e-5; XLA's own, which sums an image of three channels
      # one product after another, 7e-5.
      np.testing.assert_allclose(
        got[r, c], want, rtol=0, atol=1e-4 * len(outputs) ** 0.5
      )
