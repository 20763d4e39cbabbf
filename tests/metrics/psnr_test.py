"""PSNR of known errors."""

import numpy as np
import pytest

from pir_jax.metrics import psnr


def test_a_constant_error_has_its_decibels():
  truth = np.zeros((2, 4, 5, 3))
  frames = truth + np.array([0.1, 0.01])[:, None, None, None]
  np.testing.assert_allclose(psnr.psnr(frames, truth), [20, 40])


def test_bytes_and_floats_agree():
  rng = np.random.default_rng(0)
  a, b = rng.integers(0, 256, (2, 3, 4, 5, 3), dtype=np.uint8)
  np.testing.assert_allclose(
    psnr.psnr(a, b), psnr.psnr(a / 255.0, b / 255.0), rtol=1e-12
  )


def test_mask_counts_only_what_it_covers():
  truth = np.zeros((3, 4, 4, 3))
  frames, mask = truth.copy(), np.zeros((3, 4, 4, 1))
  frames[:, 0, 0] = 0.1
  frames[:, 3, 3] = 1.0
  mask[0, 0, 0] = mask[1, 0, :2] = 1
  # Half the covered pixels are wrong in frame 1: 3 dB less error.
  expected = [20, 20 + 10 * np.log10(2), np.nan]
  np.testing.assert_allclose(psnr.psnr(frames, truth, mask), expected)
  np.testing.assert_allclose(psnr.psnr(frames, truth, mask > 0.5), expected)


def test_equal_frames_are_infinite_and_other_ranges_refused():
  frame = np.full((4, 4, 3), 0.3)
  assert psnr.psnr(frame, frame) == np.inf
  with pytest.raises(ValueError, match=r"\[0, 1\]"):
    psnr.psnr(frame - 1, frame)
