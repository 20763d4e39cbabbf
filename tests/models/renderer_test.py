"""The renderer: empty space, a Gaussian blob that moves as the camera says."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pir_jax.geometry import cameras, compositing, rays, sampling
from pir_jax.models import renderer
from pir_jax.types import Cameras


def _camera(eye):
  pose = cameras.look_at(
    jnp.array(eye), jnp.zeros(3), jnp.array([0.0, 1.0, 0.0])
  )
  k = jnp.array([[4.26, 0.0, 0.5], [0.0, 4.26, 0.5], [0.0, 0.0, 1.0]])
  return Cameras(pose[None], k[None])


def _renderer(**options):
  options = {"num_coarse": 6, "num_fine": 6, "hidden_size": 8} | options
  return renderer.Renderer(renderer.Config(**options), 4, rngs=nnx.Rngs(0))


@pytest.mark.parametrize("num_fine", [0, 6])
def test_empty_space_is_minus_one(num_fine):
  network = _renderer(num_fine=num_fine)
  network.decoder.output.bias[...] = jnp.full(5, -1e4)
  render = jax.jit(lambda p: network(p, _camera([0.0, 0.0, 2.7]), 4))
  got = render(jnp.zeros((1, 3, 8, 8, 4)))
  np.testing.assert_array_equal(got.feature, -1)


@pytest.mark.parametrize("eye", [[0.0, 0.0, 2.7], [1.2, 0.5, 2.3]])
@pytest.mark.parametrize("centre", [[0.1, 0.05, 0.1], [-0.15, 0.1, -0.1]])
def test_a_blob_is_seen_where_projection_puts_it(eye, centre):
  views = _camera(eye)
  lines = rays.cast(views, 24)
  depths = sampling.stratified(2.25, 3.3, 64, (1, 24 * 24))
  points = rays.points_along(lines, depths)
  square = jnp.sum(jnp.square(points - jnp.array(centre)), -1)
  # softplus(x - 1) is close to exp(x - 1) here: thin Gaussian matter.
  densities = -4 - square / (2 * 0.05**2)
  weights = compositing.render(
    jnp.ones((*densities.shape, 1)), densities, depths
  ).weight_sum
  weights = weights[0] / jnp.sum(weights)
  got = weights @ rays.pixel_centres(24)
  want, depth = cameras.project(jnp.array([[centre]]), views)
  # Perspective pulls the centroid by about (0.05 / 2.7)^2 of the window.
  np.testing.assert_allclose(got, want[0, 0], atol=5e-3)
  assert 2.25 < float(depth[0, 0]) < 3.3


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_plane_decides_what_is_seen_at_its_own_coordinates(axis):
  """Matter at one pixel of one plane is a bar along the missing axis."""
  network = _renderer(num_coarse=8)
  pair = [(0, 1), (0, 2), (1, 2)][axis]
  planes = jnp.zeros((1, 3, 8, 8, 4)).at[0, axis, 6, 2].set(5.0)
  point = np.zeros(3)
  # Pixel centres of 8 in [-0.5, 0.5]: column 2 first, then row 6.
  point[pair[0]], point[pair[1]] = (2.5 / 8) - 0.5, (6.5 / 8) - 0.5
  bordered = renderer.triplane.border(planes)

  def density(p):
    return network.sample(bordered, jnp.asarray(p, jnp.float32)[None, None])

  background = density(np.full(3, 0.45)).density
  along = point.copy()
  along[3 - sum(pair)] = 0.3
  np.testing.assert_allclose(
    density(point).density, density(along).density, rtol=1e-5
  )
  assert not np.allclose(density(point).density, background, atol=1e-3)
  point[pair[0]] += 0.25
  np.testing.assert_allclose(density(point).density, background, rtol=1e-5)


def test_recomputing_changes_no_gradient():
  planes = jax.random.normal(jax.random.key(0), (1, 3, 8, 8, 4))

  def gradient(remat):
    network = _renderer(remat=remat)
    return jax.jit(
      jax.grad(
        lambda p: jnp.sum(
          jnp.square(network(p, _camera([0.0, 0.0, 2.7]), 4).feature)
        )
      )
    )(planes)

  # Fusion may round differently.
  np.testing.assert_allclose(gradient(True), gradient(False), atol=1e-4)


def test_mean_is_a_third_of_the_sum():
  planes = jax.random.normal(jax.random.key(0), (1, 3, 8, 8, 4))
  points = jnp.array([[[0.1, 0.2, -0.1]]])
  border = renderer.triplane.border
  one = _renderer(plane_reduce="mean").sample(border(planes), points)
  three = _renderer().sample(border(planes / 3), points)
  np.testing.assert_allclose(one.density, three.density, rtol=1e-5)
  with pytest.raises(ValueError, match="plane_reduce='max'"):
    _renderer(plane_reduce="max")


@pytest.mark.parametrize("distance", [1.8, 2.7, 4.0])
def test_rays_begin_where_the_head_is_however_far_the_camera(distance):
  """The same matter is met, and its depth is the camera's own."""
  chex.clear_trace_counter()  # Counted by source line, over all distances.
  network = _renderer(num_coarse=24, num_fine=24)
  planes = jnp.zeros((1, 3, 8, 8, 4))
  render = jax.jit(
    chex.assert_max_traces(lambda view: network(planes, view, 4), n=1)
  )
  got = render(_camera([0.0, 0.0, distance]))
  near = render(_camera([0.0, 0.0, 2.7]))
  np.testing.assert_allclose(got.weight_sum, near.weight_sum, rtol=1e-4)
  np.testing.assert_allclose(got.depth - distance, near.depth - 2.7, atol=1e-4)
  fixed = _renderer(num_coarse=24, num_fine=24, ray_reference=0.0)
  absolute = jax.jit(lambda view: fixed(planes, view, 4))(
    _camera([0.0, 0.0, distance])
  )
  np.testing.assert_allclose(absolute.depth, near.depth, atol=1e-4)
