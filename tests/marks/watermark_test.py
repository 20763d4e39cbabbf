"""The mark is detected after what videos go through, and only where it is."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pir_jax.marks import watermark
from pir_jax.media import blending, encoders

HEIGHT, WIDTH, NUM_FRAMES = 192, 256, 32
WINDOW = np.float32([120.5, 100.25, 160])


def _frames():
  """A textured picture that moves under what is inpainted."""
  rng = np.random.default_rng(3)
  texture = rng.normal(size=(HEIGHT + 40, WIDTH + 40, 3))
  texture = 400 * ndimage.gaussian_filter(texture, (4, 4, 0)) + 120
  for i in range(NUM_FRAMES):
    yield np.clip(texture[i : HEIGHT + i, :WIDTH], 0, 255).astype(np.uint8)


def _pasted(pattern):
  mask = np.zeros((64, 64), bool)
  mask[10:54, 8:56] = True
  for i, frame in enumerate(_frames()):
    inside = np.asarray(Image.fromarray(frame).resize((64, 64)))
    inpainted = ndimage.gaussian_filter(np.float32(inside), (1, 1, 0))
    inpainted = np.roll(inpainted, i, 1) / 127.5 - 1
    yield blending.paste(frame, WINDOW, inpainted, mask, pattern)


@pytest.fixture(scope="module")
def marked():
  return list(_pasted(watermark.pattern))


@pytest.fixture(scope="module")
def plain():
  return list(_pasted(None))


def _encoded(frames, crf):
  file = io.BytesIO()
  size = (frames[0].shape[1], frames[0].shape[0])
  with av.open(file, "w", format="mp4") as container:
    encoder = encoders.PictureEncoder(container, size, Fraction(25), crf=crf)
    for frame in frames:
      encoder.write(frame)
    encoder.finish()
  file.seek(0)
  with av.open(file) as container:
    return [x.to_ndarray(format="rgb24") for x in container.decode(video=0)]


def _resized(frames, width, height):
  return [
    np.asarray(Image.fromarray(x).resize((width, height))) for x in frames
  ]


ATTACKS = {
  "none": lambda x: x,
  "CRF 28": lambda x: _encoded(x, "28"),
  "crop": lambda x: _encoded([f[13:-7, 9:-17] for f in x], "23"),
  "half and back": lambda x: _resized(
    _resized(x, WIDTH // 2, HEIGHT // 2), WIDTH, HEIGHT
  ),
  "half": lambda x: _resized(x, WIDTH // 2, HEIGHT // 2),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_marked_is_detected_and_unmarked_is_not(attack, marked, plain):
  with_mark, without = (
    watermark.detect(ATTACKS[attack](frames)) for frames in (marked, plain)
  )
  assert with_mark.is_marked, with_mark
  assert not without.is_marked, without


def test_only_covered_pixels_change_and_little(marked, plain):
  change = np.abs(np.int16(marked[0]) - plain[0])
  x, y, side = WINDOW
  assert not change[: int(y - side / 2)].any()
  assert not change[:, int(x + side / 2) + 1 :].any()
  inside = change[80:120, 100:140]
  assert 0.5 < np.sqrt((np.float32(inside) ** 2).mean()) < 4
  assert change.max() <= 20


def test_the_pattern_is_of_the_frame_and_not_of_the_window():
  whole = watermark.pattern(slice(0, 300), slice(0, 400), 140.0)
  part = watermark.pattern(slice(37, 290), slice(141, 399), 140.0)
  np.testing.assert_array_equal(part, whole[37:290, 141:399])


def test_a_larger_face_gets_a_weaker_mark():
  strengths = [
    watermark.pattern(slice(0, 128), slice(0, 128), side).std()
    for side in (140.0, 300.0, 600.0, 900.0)
  ]
  assert strengths[0] > strengths[1] > strengths[2] == strengths[3] > 0.5


def test_a_small_face_gets_none():
  side = watermark.SMALLEST - 1.0
  nothing = watermark.pattern(slice(7, 128), slice(3, 90), side)
  assert nothing.shape == (121, 87, 3) and not nothing.any()


def test_tiles_of_other_seeds_see_nothing(marked):
  planes, count = watermark.accumulate(marked)
  assert count == NUM_FRAMES // 2
  assert watermark.score(planes) > watermark.THRESHOLD
  for seed in range(1, 4):
    assert watermark.score(planes, (seed, seed + 9)) < watermark.THRESHOLD


def test_small_and_flat_frames_are_no_mark():
  for shape in ((2, 2, 3), (40, 30, 3), (131, 7, 3)):
    frames = [np.full(shape, 90, np.uint8)] * 3
    assert not watermark.detect(frames).is_marked


def test_without_a_frame_it_is_an_error():
  with pytest.raises(ValueError, match="without a frame"):
    watermark.detect([])
