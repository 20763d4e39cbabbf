"""SSIM against its formula at one window, and inside a mask."""

import numpy as np

from pir_jax.metrics import ssim


def _frames():
  rng = np.random.default_rng(0)
  truth = rng.uniform(0.2, 0.8, (2, 24, 20, 3))
  return truth + rng.normal(0, 0.05, truth.shape), truth


def test_one_window_follows_the_formula():
  frames, truth = (x[0, :11, :11] for x in _frames())
  mask = np.zeros((11, 11, 1))
  mask[5, 5] = 1  # where the 11-pixel window lies wholly inside
  line = np.exp(-np.square(np.arange(-5, 6) / 1.5) / 2)
  window = np.outer(line, line)[..., None] / np.square(line.sum())
  a, b = ((window * x).sum((0, 1)) for x in (frames, truth))
  aa, bb, ab = (
    (window * x * y).sum((0, 1))
    for x, y in ((frames, frames), (truth, truth), (frames, truth))
  )
  c1, c2 = 0.01**2, 0.03**2
  expected = (2 * a * b + c1) * (2 * (ab - a * b) + c2)
  expected /= (a * a + b * b + c1) * (aa - a * a + bb - b * b + c2)
  np.testing.assert_allclose(
    ssim.ssim(frames, truth, mask), expected.mean(), rtol=1e-9
  )


def test_equal_frames_give_one_and_noise_less():
  frames, truth = _frames()
  np.testing.assert_allclose(ssim.ssim(truth, truth), [1, 1])
  values = ssim.ssim(frames, truth)
  assert values.shape == (2,) and (values < 0.97).all()


def test_mask_ignores_what_lies_a_window_away():
  frames, truth = _frames()
  mask = np.zeros((2, 24, 20, 1), bool)
  mask[0, :8, :8] = True
  other = frames.copy()
  other[:, 16:, 16:] = 0
  a, b = (ssim.ssim(x, truth, mask) for x in (frames, other))
  np.testing.assert_allclose(a[0], b[0], rtol=1e-12)
  assert np.isnan(a[1])
