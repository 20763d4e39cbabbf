"""Rows of the evaluation are made of what they say."""

import numpy as np

from pir_jax import comparison, sheet


def test_painted_window_shows_inside_and_the_truth_outside():
  truth = np.full((64, 64, 3), 200, np.uint8)
  painted = np.full((16, 16, 3), -1.0, np.float32)
  opacity = np.zeros((16, 16), np.float32)
  opacity[4:12, 4:12] = 1.0
  out = comparison._blend(truth, painted, opacity)
  np.testing.assert_array_equal(out[32, 32], 0)
  np.testing.assert_array_equal(out[:8], truth[:8])
  np.testing.assert_array_equal(out[:, -8:], truth[:, -8:])


def test_codec_changes_little_and_keeps_every_frame():
  y, x = np.mgrid[:64, :64]
  frame = np.stack([2 * x + 60, 2 * y + 60, x + y + 60], -1).astype(np.uint8)
  frames = np.stack([frame, frame[::-1], frame[:, ::-1]])
  out = comparison._reencode(frames)
  assert out.shape == frames.shape
  error = np.abs(out.astype(int) - frames).mean((1, 2, 3))
  # A smooth ramp at crf 16 loses a grey level or two.
  assert error.max() < 4
  # Each frame is nearest to itself: none was lost or swapped.
  cross = np.abs(out[:, None].astype(int) - frames[None]).mean((2, 3, 4))
  np.testing.assert_array_equal(cross.argmin(1), [0, 1, 2])


def test_table_has_a_line_for_each_row():
  values = dict.fromkeys(
    ("psnr_mask", "ssim_mask", "lpips_mask", "psnr", "ssim", "lpips", "mouth"),
    1.0,
  )
  table = {comparison.TRUTH: values, comparison.FROZEN: values}
  lines = comparison.as_text(table, 18, "me.mp4").splitlines()
  assert lines[-1].startswith("frozen mouth") and "1.000" in lines[-1]
  assert "18 held-out frames" in lines[0]


def test_contact_sheet_shows_evenly_spaced_frames():
  frames = np.zeros((11, 8, 8, 3), np.uint8)
  frames[:, :, :, 0] = np.arange(11)[:, None, None] * 20
  picture = np.asarray(
    sheet.contact_sheet({"real": frames}, num_columns=3, side=8)
  )
  assert picture.shape == (30, 24, 3)
  np.testing.assert_array_equal(picture[-4, [4, 12, 20], 0], [0, 100, 200])
