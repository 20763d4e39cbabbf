"""Views: the camera is where it is said to be, and shows what is there."""

import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from pir_jax.data import synthetic, track
from pir_jax.geometry import cameras as cameras_lib
from pir_jax.geometry import rays
from pir_jax.inference import viewer as viewer_lib
from pir_jax.media import video_reader
from pir_jax.models import triplane_generator
from pir_jax.runs import run
from pir_jax.runtime import checkpoint
from pir_jax.types import Cameras, FaceSpace, InputError

SPACE = FaceSpace(
  3,
  ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "eyeBlinkLeft"),
  np.float32([0.1, 0.2, 0.3, 0.4]),
  np.float32([0.5, 0.25, 0.5, 1.0]),
)
NAMES_AND_MEAN = SPACE.expression_names, SPACE.expression_mean


def test_window_in_front_is_the_middle_of_the_box():
  for box in (1.0, 1.4):
    view = viewer_lib.around(viewer_lib.in_front(box), np.zeros(1))
    corners = box * jnp.array([[[-0.5, 0.5, 0.0], [0.5, -0.5, 0.0]]])
    uv, depth = cameras_lib.project(corners, view)
    np.testing.assert_allclose(uv[0], [[0, 0], [1, 1]], atol=1e-6)
    assert np.all(depth > 0)


def test_window_of_a_clip_has_the_head_where_the_clip_has_it(tmp_path):
  synthetic.write_synthetic(tmp_path / "clip", num_frames=22)
  known, _ = track.load_track(tmp_path / "clip")
  view = viewer_lib.of_clip(tmp_path / "clip")
  assert view.distance == pytest.approx(2.7, rel=1e-5)
  # The synthetic head sways by at most 0.15 and 0.1 radians.
  assert abs(view.turn) < 9 and abs(view.nod) < 6
  camera = viewer_lib.around(view, np.zeros(1))
  uv, _ = cameras_lib.project(jnp.zeros((1, 1, 3)), camera)
  np.testing.assert_allclose(uv[0, 0], [0.5, 0.5], atol=1e-5)
  eye = known.pose[:, :3, 3].mean(0)
  np.testing.assert_allclose(
    camera.pose[0, :3, 3], 2.7 * eye / np.linalg.norm(eye), atol=1e-5
  )
  with pytest.raises(InputError, match="prepare"):
    viewer_lib.of_clip(tmp_path)


def test_swing_can_be_looped_and_covers_both_sides():
  turns = viewer_lib.swing(30.0, 100)
  assert turns[0] == 0
  assert turns.max() == pytest.approx(30) and turns.min() == pytest.approx(-30)
  # The step over the end is as the steps beside it.
  assert turns[0] - turns[-1] == pytest.approx(turns[1] - turns[0])
  row = viewer_lib.swing(30.0, 7, there_and_back=False)
  np.testing.assert_allclose(row, [-30, -20, -10, 0, 10, 20, 30])
  np.testing.assert_allclose(viewer_lib.swing(360.0, 4), [0, 90, 180, 270])


def test_expression_goes_over_the_mean():
  raw, notes = viewer_lib.parse_expression(
    " mouthSmileRight = -0.25, jawOpen=.8,", *NAMES_AND_MEAN
  )
  np.testing.assert_array_equal(raw, np.float32([0.8, 0.2, -0.25, 0.4]))
  # Each with what it replaces.
  assert [note.split(",")[0] for note in notes] == [
    "mouthSmileRight=-0.25",
    "jawOpen=0.8",
  ]
  assert "0.10 on average" in notes[1]
  raw, notes = viewer_lib.parse_expression("", *NAMES_AND_MEAN)
  np.testing.assert_array_equal(raw, SPACE.expression_mean)
  raw, notes = viewer_lib.parse_expression("jawOpen=2", *NAMES_AND_MEAN)
  assert raw[0] == 2 and "jawOpen=2 is far" in notes[0]
  np.testing.assert_array_equal(SPACE.expression_mean[0], np.float32(0.1))


@pytest.mark.parametrize(
  ("text", "says"),
  [
    ("jawopen=1", "jawOpen"),
    ("mouthSmile=1", "mouthSmileLeft.*mouthSmileRight|mouthSmileRight.*Left"),
    ("jawOpen", "name=value"),
    ("jawOpen=wide", "jawOpen=wide is not a number"),
    ("jawOpen=nan", "not a number"),
    ("jawOpen=", "not a number"),
    ("=1", "there is no expression ''"),
  ],
)
def test_expression_that_cannot_be_read(text, says):
  with pytest.raises(InputError, match=says):
    viewer_lib.parse_expression(text, *NAMES_AND_MEAN)


def sphere(camera, side, radius=0.35):
  """Depths, what meets it, and the true normals, of a ball at the origin."""
  lines = jax.jit(rays.cast, static_argnums=1)(camera, side)
  along = -np.sum(lines.origins * lines.directions, -1)
  off = np.sum(np.square(lines.origins), -1) - along**2
  met = off < radius**2
  depth = along - np.sqrt(np.maximum(radius**2 - off, 0))
  points = np.asarray(rays.points_along(lines, jnp.asarray(depth)[..., None]))
  shape = (len(depth), side, side)
  inner = off < (0.8 * radius) ** 2
  return (
    jnp.asarray(depth).reshape(shape),
    jnp.asarray(met, jnp.float32).reshape(shape),
    points.reshape(*shape, 3) / radius,
    inner.reshape(shape),
  )


def test_normals_of_a_ball_point_away_from_its_middle():
  view = viewer_lib.in_front()._replace(nod=20.0)
  camera = viewer_lib.around(view, np.array([-70.0, 0.0, 40.0, 180.0]))
  depth, weight_sum, want, inner = sphere(camera, 64)
  compute = jax.jit(viewer_lib.normals_of_depth)
  normals = np.asarray(compute(depth, weight_sum, camera))
  # Central differences over 1 / 22 of the radius, away from the silhouette.
  assert np.sum(normals * want, -1)[inner].min() > 0.995
  met = np.asarray(weight_sum) > 0.5
  np.testing.assert_allclose(
    np.linalg.norm(normals[met], axis=-1), 1, atol=1e-5
  )
  assert not normals[~met].any()
  flat = compute(depth * 0, weight_sum, camera)
  assert not np.any(flat)  # No surface in a point: no direction, and no nan.


def ball_seen(side=16):
  camera = viewer_lib.around(viewer_lib.in_front(), np.zeros(1))
  depth, weight_sum, normals, _ = sphere(camera, side)
  image = np.linspace(-1.2, 1.2, 32 * 32 * 3).reshape(1, 32, 32, 3)
  return viewer_lib.Pictures(
    np.float32(image), *map(np.asarray, (depth, weight_sum, normals))
  )


def test_near_is_bright_and_nothing_is_black():
  pictures = viewer_lib.to_pictures(ball_seen())
  assert {p.shape for p in pictures.values()} == {(1, 32, 32, 3)}
  depth, normals = pictures["depth"][0, ..., 0], pictures["normals"][0]
  assert depth[0, 0] == 0 and not normals[0, 0].any()
  middle = depth[16, 16:]
  on = middle > 0
  assert middle[0] == 255 and np.all(np.diff(middle[on].astype(int)) <= 0)
  assert 20 < middle[on].min() < 80
  # To the head's left, which is to our right, red grows; upwards green; ahead
  # blue.
  assert normals[16, 22, 0] > 150 and normals[16, 9, 0] < 105
  assert normals[9, 16, 1] > 150 and normals[22, 16, 1] < 105
  assert normals[16, 16, 2] > 250
  assert pictures["image"][0].min() == 0 and pictures["image"][0].max() == 255


def test_a_view_of_nothing_is_black_not_an_error():
  seen = ball_seen()
  empty = seen._replace(weight_sum=seen.weight_sum * 0)
  pictures = viewer_lib.to_pictures(empty)
  assert not pictures["depth"].any() and not pictures["normals"].any()
  assert viewer_lib.share_met(empty) == 0 < viewer_lib.share_met(seen) < 1


def test_files_hold_what_was_seen(tmp_path):
  seen = ball_seen()
  viewer_lib.save_arrays(tmp_path / "seen.NPZ", seen)
  with np.load(tmp_path / "seen.NPZ") as arrays:
    assert set(arrays) == set(viewer_lib.Pictures._fields)
    for name, value in seen._asdict().items():
      np.testing.assert_array_equal(arrays[name], value[0])
  film = viewer_lib.Pictures(*(np.repeat(x, 3, 0) for x in seen))
  viewer_lib.save_film(tmp_path / "seen.mp4", film)
  frames = [
    frame for _, frame in video_reader.read_frames(tmp_path / "seen.mp4")
  ]
  assert [frame.shape for frame in frames] == [(32, 96, 3)] * 3
  viewer_lib.save_sheet(tmp_path / "seen.png", viewer_lib.to_pictures(film))
  with Image.open(tmp_path / "seen.png") as picture:
    assert picture.width == 3 * 256
  assert len(list(tmp_path.iterdir())) == 3


class Face(nnx.Module):
  """Stands for a generator: each output tells one thing that went in."""

  def __init__(self):
    self.scale = nnx.Param(jnp.array(2.0))

  def map(self, identity, expression):
    return jnp.concatenate([identity, expression], -1)[:, None]

  def planes(self, ws):
    return self.scale * jnp.ones((1, 3, 1, 1, 1)) * ws[:, None, :, None]

  def synthesize(self, ws, cameras, *, upsample):
    assert upsample
    ones = jnp.ones((len(cameras), 4, 4))
    return triplane_generator.TriPlaneOutput(
      planes=self.planes(ws),
      feature_image=ones[..., None],
      depth=ones * cameras[:, 3, None, None],  # The camera's x.
      weight_sum=ones,
      raw_image=jnp.stack([ones] * 3, -1),
      image=ones[..., None] * ws[:, :, None, 3:6],
    )


def test_viewer_shows_the_person_at_standardised_expressions(monkeypatch):
  # A second trace fails: any number of views is filled up to whole batches.
  once = chex.assert_max_traces(viewer_lib.normals_of_depth, n=1)
  monkeypatch.setattr(viewer_lib, "normals_of_depth", once)
  identity = np.float32([0.5, -1.0, 2.0])
  viewer = viewer_lib.Viewer(
    Face(), SPACE, identity, SPACE.expression_mean, batch_size=2
  )
  # Not a multiple of the batch size.
  camera = viewer_lib.around(
    viewer_lib.in_front(), np.array([-20.0, 0.0, 20.0])
  )
  raw = np.float32([0.9, 0.1, 0.0, 0.4])
  known = SPACE.standardise(raw)
  seen = viewer.render(raw, camera)
  np.testing.assert_allclose(
    seen.image, np.broadcast_to(known[:3], (3, 4, 4, 3)), atol=1e-6
  )
  np.testing.assert_allclose(seen.depth[:, 0, 0], camera.pose[:, 0, 3])
  assert seen.normals.shape == (3, 4, 4, 3)
  viewer.render(raw, Cameras(*(x[:1] for x in camera)))
  want = 2 * np.concatenate([identity, known])
  np.testing.assert_allclose(viewer.planes(raw)[0, 0, 0, 0], want, atol=1e-6)


def test_viewer_opens_the_run_or_the_folder_it_is_in(tmp_path, monkeypatch):
  folder = tmp_path / "model"
  checkpoint.write_record(folder / "triplane", {"stage": "triplane"})
  checkpoint.write_record(folder / "expression", {"stage": "expression"})
  people = [{"identity": [1.0, 2.0, 3.0]}, {"identity": [4.0, 5.0, 6.0]}]
  opened = []
  experiment = types.SimpleNamespace(
    stage=types.SimpleNamespace(init_from="people/base")
  )

  def open_run(path):
    opened.append(path)
    return run.Run(experiment, None, None, SPACE, 0, people)

  monkeypatch.setattr(viewer_lib, "open_run", open_run)
  monkeypatch.setattr(viewer_lib, "generator_of", lambda run: Face())
  viewer = viewer_lib.Viewer.open(folder)
  assert viewer.space is SPACE and viewer.prior == ", begun from base"
  viewer_lib.Viewer.open(str(folder / "triplane"), 1)
  assert opened == [folder / "triplane"] * 2
  for person in (-1, 2):
    with pytest.raises(InputError, match=f"person={person}"):
      viewer_lib.Viewer.open(folder, person)
  with pytest.raises(InputError, match="stage expression"):
    viewer_lib.Viewer.open(folder / "expression")
  with pytest.raises(InputError, match="not a training run"):
    viewer_lib.Viewer.open(tmp_path)
