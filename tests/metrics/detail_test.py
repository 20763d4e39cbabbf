"""The finest detail of pictures whose sharpness is known."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pir_jax.metrics import detail

MASK = np.pad(np.ones((160, 160), bool), 16)


def texture(size: int = 192) -> np.ndarray:
  """Amplitudes fall with frequency as in photographs, up to the last pixel."""
  rng = np.random.default_rng(0)
  spectrum = np.fft.rfft2(rng.normal(size=(size, size)))
  rows, cols = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)
  spectrum /= np.maximum(np.hypot(rows, cols), 2 / size)
  grey = np.fft.irfft2(spectrum, (size, size))
  grey = np.clip(128 + 45 * grey / grey.std(), 0, 255).astype(np.uint8)
  return np.repeat(grey[..., None], 3, axis=-1)


def enlarged(factor: int) -> np.ndarray:
  small = Image.fromarray(texture(192 // factor))
  return np.array(small.resize((192, 192), Image.Resampling.LANCZOS))


def test_the_sharpest_has_detail_of_one_pixel():
  assert detail.finest(texture(), MASK) < 1.3


@pytest.mark.parametrize("factor", [2, 3, 4, 6])
def test_enlarging_enlarges_the_detail(factor):
  """A quarter either way: neither resampling nor the eye has a sharp limit."""
  found = detail.finest(enlarged(factor), MASK)
  assert found == pytest.approx(factor, rel=0.25)


def test_more_blur_has_coarser_detail():
  picture = texture().astype(np.float32)
  found = []
  for sigma in (0.7, 1.5, 3.0, 5.0):
    blurred = ndimage.gaussian_filter(picture, (sigma, sigma, 0))
    found.append(detail.finest(blurred.astype(np.uint8), MASK))
  assert np.all(np.diff(found) > 0.3)


def test_only_the_mask_counts():
  picture = enlarged(4)
  picture[:, :16] = texture()[:, :16]
  inner = np.zeros_like(MASK)
  inner[40:150, 60:150] = True
  assert detail.finest(picture, inner) > 2.5
  assert detail.finest(picture, ~inner) < 2


def test_nothing_to_see():
  flat = np.full((192, 192, 3), 90, np.uint8)
  assert detail.finest(flat, MASK) == pytest.approx(1 / detail.SCALES[-1])
  with pytest.raises(ValueError, match="mask is empty"):
    detail.finest(flat, np.zeros_like(MASK))
