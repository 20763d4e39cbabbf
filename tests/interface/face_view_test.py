"""Pictures for a live view: the right ones, without compiling again."""

import chex
import jax.numpy as jnp
import numpy as np
import pytest

from pir_jax.geometry import compositing
from pir_jax.inference import viewer as viewer_lib
from pir_jax.interface import face_view, scene
from pir_jax.types import Cameras
from tests.interface.small_face import MEAN, SPACE, VIEW, face, network

CAMERA = scene.camera_of(VIEW)
OPEN = MEAN + np.float32([0.5, 0, 0, 0])


def test_ladders_rise_to_what_the_network_was_trained_for():
  rungs = {kind: face().rungs(kind) for kind in (*face_view.KINDS, "mesh")}
  for ladder in rungs.values():
    nums = [rung.num for rung in ladder]
    assert nums == sorted(nums)
  assert rungs["image"][-1] == face_view.Rung(8, upsampled=True)
  assert rungs["depth"][-1] == face_view.Rung(32)


def test_the_finest_image_is_the_network_s_own_where_the_head_is():
  view = face()
  viewer = viewer_lib.Viewer(network(), SPACE, np.float32([0.5, -1, 2]), MEAN)
  want = viewer.render(OPEN, Cameras(*(x[None] for x in CAMERA)))
  seen = view.render(OPEN, CAMERA, "image", view.rungs("image")[-1])
  assert seen.shape == (32, 32, 3)
  inside = np.s_[12:20, 12:20]
  target = viewer_lib.to_pictures(want)["image"][0]
  difference = np.abs(seen[inside].astype(int) - target[inside])
  assert difference.max() <= 1  # Of rounding.


def test_moving_sliders_and_cameras_compile_nothing(monkeypatch):
  # Two sizes are two traces.
  once = chex.assert_max_traces(face_view.shape_picture, n=2)
  monkeypatch.setattr(face_view, "shape_picture", once)
  made = face_view.FaceView(network(), SPACE, np.zeros(3, np.float32), MEAN)
  pictures = []
  for rung in made.rungs("depth"):
    for expression in (MEAN, OPEN):
      for turn in (0.0, 25.0):
        camera = scene.camera_of(VIEW._replace(turn=turn))
        pictures.append(made.render(expression, camera, "depth", rung))
    made.update(network(1))
    pictures.append(made.render(OPEN, camera, "depth", rung))
  assert [p.shape[0] for p in pictures] == [8] * 5 + [32] * 5
  # And each is another picture.
  for one, other in zip(pictures[:4], pictures[1:5], strict=True):
    assert np.any(one != other)


def test_planes_are_made_once_for_an_expression(monkeypatch):
  made = face()
  made.forget()
  calls = []
  original = made._make_planes
  monkeypatch.setattr(
    made, "_make_planes", lambda *args: calls.append(1) or original(*args)
  )
  rung = made.rungs("image")[0]
  for expression in (MEAN, MEAN, OPEN, OPEN):
    for kind in ("image", "image"):
      made.render(expression, CAMERA, kind, rung)
  assert len(calls) == 2


def rays_that_meet(weight_sum, depth):
  return compositing.Rendering(
    jnp.zeros((1, 16, 3)), jnp.float32(depth), jnp.float32(weight_sum)
  )


@pytest.mark.parametrize("distance", [1.5, 2.7, 8.0])
def test_depth_has_one_scale_at_any_distance(distance):
  camera = scene.camera_of(VIEW._replace(distance=distance))
  camera = Cameras(*(x[None] for x in camera))
  met = np.ones((1, 16))
  met[0, 5] = 0
  seen = rays_that_meet(met, np.full((1, 16), distance - 0.4))
  picture = np.asarray(face_view.shape_picture(seen, camera, "depth", 1.0))
  want = np.ones((16, 3))
  want[5] = 0
  np.testing.assert_allclose(picture.reshape(16, 3), want, atol=1e-6)
  seen = rays_that_meet(met, np.full((1, 16), distance + 0.1))
  behind = np.asarray(face_view.shape_picture(seen, camera, "depth", 1.0))
  np.testing.assert_allclose(behind.reshape(16, 3), 0.15 * want, atol=1e-6)


def test_far_from_matter_is_black_and_a_ray_around_it_is_not():
  met = np.zeros((1, 49))
  met[0, 24] = 1.0
  share = np.asarray(face_view.near_matter(jnp.float32(met), 7))[..., 0]
  want = np.zeros((7, 7))
  want[2:5, 2:5] = 1
  np.testing.assert_allclose(share, want)


def test_a_mesh_follows_the_expression():
  made = face()
  coarse = made.rungs("mesh")[0]
  meshes = [made.mesh(expression, coarse) for expression in (MEAN, OPEN)]
  for mesh in meshes:
    assert len(mesh.faces)
  shapes = [mesh.vertices.shape for mesh in meshes]
  assert shapes[0] != shapes[1] or np.any(
    meshes[0].vertices != meshes[1].vertices
  )
