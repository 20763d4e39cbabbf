"""Rows of the evaluation are made of what they say, and measured as such."""

import numpy as np
import pytest

from pir_jax.evaluation import held_out_frames, reenactment
from pir_jax.inference.person import Person
from pir_jax.media import blending, plots
from pir_jax.types import Cameras, ExpressionStats, FaceSpace


def test_a_pasted_window_is_inside_and_the_target_outside():
  target = np.full((2, 64, 64, 3), 200, np.uint8)
  target[:, 18:46, 18:46] = 90
  faces = np.full((2, 32, 32, 3), 200 / 127.5 - 1, np.float32)
  cover = np.zeros((2, 32, 32, 1), np.float32)
  cover[:, 8:24, 8:24] = 1.0
  square = np.tile(np.float32([32, 32, 64]), (2, 1))
  out = held_out_frames.pasted(target, faces, cover, square)
  # A grey level may be lost on the way to linear light and back.
  np.testing.assert_allclose(out[:, 30:34, 30:34].astype(int), 200, atol=1)
  outside = ~np.stack(
    [blending.changed_region(x[..., 0] > 0, 64) for x in cover]
  )
  assert outside.mean() > 0.4
  np.testing.assert_array_equal(out[outside], target[outside])


def test_a_part_of_a_window_changes_what_its_region_says_and_no_more():
  random = np.random.default_rng(0)
  target = random.integers(0, 256, (1, 64, 64, 3), np.uint8)
  faces = np.zeros((1, 32, 32, 3), np.float32)
  cover = np.zeros((1, 32, 32, 1), np.float32)
  cover[:, 8:24, 8:24] = 1.0
  square = np.float32([[37.4, 25.2, 29.7]])
  out = held_out_frames.pasted(target, faces, cover, square)
  region = reenactment.changed_regions(cover[..., 0] > 0, square, 64)
  changed = (out != target).any(-1)
  assert changed.any() and not (changed & ~region).any()
  # Some of the region is the faint end of the feather, which rounds to nothing.
  assert region.sum() < 1.5 * changed.sum()


def test_the_region_of_a_whole_window_is_that_of_its_mask():
  cover = np.zeros((1, 32, 32), bool)
  cover[:, 8:24, 8:24] = True
  whole = np.float32([[32, 32, 64]])
  np.testing.assert_array_equal(
    reenactment.changed_regions(cover, whole, 64)[0],
    blending.changed_region(cover[0], 64, 64.0),
  )


class GreyPerson(Person):
  """Inpaints grey; stage 2 renders black with a square of light as its head."""

  def __init__(self):
    self.resolution = 32
    self.stats = ExpressionStats(*np.zeros((2, 1), np.float32))
    self.space = FaceSpace(
      identity_size=1,
      expression_names=("jawOpen",),
      expression_mean=np.zeros(1, np.float32),
      expression_scale=np.ones(1, np.float32),
    )

  def inpaint(self, image, mask, cameras, expression):
    assert len(image) == len(mask) == len(cameras.pose) == len(expression)
    return np.zeros_like(image) + expression[:, :, None, None]

  def render_images(self, expression, cameras):
    image = np.full((len(expression), 16, 16, 3), -1.0, np.float32)
    image[:, 4:12, 4:12] = 0.5
    return image


@pytest.fixture
def held_out():
  """Twelve frames that get lighter; a head that is a square."""
  image = np.zeros((12, 32, 32, 3), np.float32)
  image += np.linspace(-0.5, 0.5, 12, dtype=np.float32)[:, None, None, None]
  square = np.zeros((12, 32, 32, 1), np.float32)
  square[:, 8:24, 8:24] = 1
  large = square.repeat(2, 1).repeat(2, 2)
  target = np.uint8((image + 1) * 127.5 + 0.5).repeat(2, 1).repeat(2, 2)
  pose, intrinsics = (
    np.tile(np.eye(n, dtype=np.float32), (12, 1, 1)) for n in (4, 3)
  )
  cameras = Cameras(pose, intrinsics)
  return held_out_frames.HeldOut(
    index=np.arange(12),
    target=target,
    mask=large,
    mouth=large,
    square=np.tile(np.float32([32, 32, 64]), (12, 1)),
    image=image,
    cover=square,
    head=square,
    cameras=cameras,
    window_cameras=cameras,
    fitted=np.full((12, 1), 0.25, np.float32),
    predicted=np.full((12, 1), -0.25, np.float32),
    boxes=np.tile(np.float32([16, 16, 48, 48]), (12, 1)),
  )


def test_rows_are_what_their_names_say(held_out):
  rows = held_out_frames.rows(held_out, GreyPerson())
  assert list(rows) == [
    held_out_frames.TARGET,
    held_out_frames.PASTED,
    held_out_frames.OTHER_MOMENT,
    held_out_frames.FROZEN,
    held_out_frames.STAGE2_FITTED,
    held_out_frames.FITTED,
    held_out_frames.STAGE2_AUDIO,
    held_out_frames.AUDIO_DRIVEN,
  ]
  del rows[held_out_frames.TARGET]
  # Beyond the feather every row is the target; in it the true face is kept.
  outside = ~np.stack(
    [blending.changed_region(x[..., 0] > 0, 64) for x in held_out.cover]
  )
  assert outside.mean() > 0.4
  for images in rows.values():
    np.testing.assert_array_equal(images[outside], held_out.target[outside])
  pasted = rows[held_out_frames.PASTED].astype(int)
  assert np.abs(pasted - held_out.target).max() <= 1
  # Without a black ring there is nothing to brighten stage 2 for.
  middle = rows[held_out_frames.STAGE2_FITTED][:, 32, 32].astype(int)
  np.testing.assert_allclose(middle, 191, atol=2)


def test_only_expressions_that_are_known_are_shown(held_out):
  rows = held_out_frames.rows(held_out._replace(predicted=None), GreyPerson())
  assert (
    held_out_frames.AUDIO_DRIVEN not in rows and held_out_frames.FITTED in rows
  )


def test_another_moment_is_never_this_one():
  moved = held_out_frames.other_moment(np.arange(18))
  assert sorted(moved) == list(range(18))
  gap = np.abs(moved - np.arange(18))
  assert np.minimum(gap, 18 - gap).min() == 6


@pytest.mark.parametrize("num", [5, 200, 201, 207, 1000])
def test_frames_are_taken_in_runs(num):
  chosen = held_out_frames.in_runs(num, 200)
  assert len(chosen) <= 200 and chosen[0] == 0 and chosen[-1] == num - 1
  assert np.all(np.diff(chosen) > 0)
  assert np.sum(np.diff(chosen) > 1) <= 3


def test_codec_changes_little_and_keeps_every_frame():
  y, x = np.mgrid[:64, :64]
  frame = np.stack([2 * x + 60, 2 * y + 60, x + y + 60], -1).astype(np.uint8)
  frames = np.stack([frame, frame[::-1], frame[:, ::-1]])
  out = held_out_frames._reencode(frames)
  assert out.shape == frames.shape
  error = np.abs(out.astype(int) - frames).mean((1, 2, 3))
  # A smooth ramp at crf 16 loses a grey level or two.
  assert error.max() < 4
  # Each frame is nearest to itself: none was lost or swapped.
  cross = np.abs(out[:, None].astype(int) - frames[None]).mean((2, 3, 4))
  np.testing.assert_array_equal(cross.argmin(1), [0, 1, 2])


def test_seams_are_at_the_outline_and_in_the_feather():
  mask = np.zeros((1, 128, 128), bool)
  mask[:, 32:96, 32:96] = True
  edges = reenactment.Edges(mask)
  y, x = np.mgrid[:128, :128]
  soft = np.repeat((y + x)[None, ..., None] / 3 + 60, 3, -1).astype(np.uint8)
  hard = soft + 30 * mask[..., None].astype(np.uint8)
  ratios = edges.gradients(hard)[:, 0] / edges.gradients(soft)[:, 0]
  assert ratios.shape == (3,) and ratios.min() > 1.15
  assert ratios[0] > 3


def test_table_has_a_line_for_each_row():
  row = reenactment.Measured(*np.linspace(0.1, 2, 15).tolist())
  table = {held_out_frames.TARGET: row, held_out_frames.FROZEN: row}
  lines = reenactment.as_text(table, 18, "me.mp4").splitlines()
  assert "18 held-out frames" in lines[0]
  named = [line for line in lines if line.startswith("frozen mouth")]
  # Ten numbers in the table, five in that of seams and motion: all of them.
  assert [len(line.split()) - 2 for line in named] == [10, 5]
  assert named[1].split()[-1] == "2.00"
  assert max(map(len, lines)) <= 110


def test_close_ups_show_the_mouth_and_are_of_one_size():
  # The last window has no mouth, and is left out.
  images = np.zeros((3, 64, 64, 3), np.uint8)
  mouth = np.zeros((3, 64, 64, 1), np.float32)
  mouth[0, 30:40, 20:40] = mouth[1, 44:50, 40:56] = 1.0
  images[mouth[..., 0] > 0] = 255
  made = reenactment.close_ups(images, mouth)
  assert made.shape == (2, 88, 88, 3)  # 4 times 1.1 times 20 px.
  light = (made[..., 0] > 127).mean((1, 2))
  np.testing.assert_allclose(light, [200 / 22**2, 96 / 22**2], rtol=0.03)
  assert (made[:, 42:46, 42:46] == 255).all()


def test_contact_sheet_shows_evenly_spaced_frames():
  frames = np.zeros((11, 8, 8, 3), np.uint8)
  frames[:, :, :, 0] = np.arange(11)[:, None, None] * 20
  picture = np.asarray(
    plots.contact_sheet({"real": frames}, num_columns=3, side=8)
  )
  assert picture.shape == (30, 24, 3)
  np.testing.assert_array_equal(picture[-4, [4, 12, 20], 0], [0, 100, 200])
