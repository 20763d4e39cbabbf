"""A seam is a step across the mask's outline, measured by the source's own."""

import numpy as np
import pytest
from scipy import ndimage

from pir_jax.metrics import seam

SIDE = 64


@pytest.fixture
def mask():
  y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2 + 0.5
  return x**2 + y**2 < 20**2


@pytest.fixture
def source():
  """Texture with detail, around grey 120."""
  noise = np.random.default_rng(0).normal(0, 1, (SIDE, SIDE))
  grey = 120 + 40 * ndimage.gaussian_filter(noise, 1.5)
  return np.repeat(grey[..., None], 3, -1).astype(np.uint8)


def ratio(output, source, band, blur=0.0):
  pair = [seam.gradient(x[None], [band], blur) for x in (output, source)]
  return seam.ratio(*pair)


def test_source_itself_has_ratio_one(mask, source):
  assert ratio(source, source, seam.band(mask)) == 1.0


def test_hard_paste_of_another_colour_shows_at_the_outline(mask, source):
  pasted = source + 40 * mask[..., None].astype(np.uint8)
  assert ratio(pasted, source, seam.band(mask)) > 2
  # Deep inside and outside nothing changed: the band alone must see it.
  band = seam.band(mask, (-6.0, 12.0))
  assert ratio(pasted, source, band) == pytest.approx(1, abs=0.02)


def test_blur_has_less(mask, source):
  blurred = ndimage.gaussian_filter(source, (3, 3, 0))
  assert ratio(blurred, source, seam.band(mask)) < 0.5


def test_feathered_step_shows_in_the_blurred_feather_only(mask, source):
  depth = ndimage.distance_transform_edt(mask)
  share = np.clip(depth / 10, 0, 1)[..., None]
  lighter = (source + 60 * share).astype(np.uint8)
  softer = ndimage.gaussian_filter(source, (1, 1, 0))
  softer = (source * (1 - share) + softer * share).astype(np.uint8)
  band = seam.band(mask, (0.0, 10.0))
  assert ratio(lighter, source, band, blur=2.5) > 1.5
  # The texture lost in the feather is no step of light.
  assert ratio(softer, source, band) < 0.9
  assert ratio(softer, source, band, blur=2.5) == pytest.approx(1, abs=0.1)


def test_lines_across_the_outline_do_not_count():
  mask = np.zeros((SIDE, SIDE), bool)
  mask[:, SIDE // 2 :] = True
  stripes = np.zeros((SIDE, SIDE, 3))
  stripes[::4] = 1.0
  band = seam.band(mask)
  # Two columns either side; the outermost rows are the picture's edge.
  assert len(band.place) == 4 * (SIDE - 2)
  np.testing.assert_allclose(np.abs(band.normal[:, 1]), 1, atol=1e-6)
  assert seam.gradient(stripes[None], [band])[0] < 1e-6
  turned = stripes.swapaxes(0, 1)
  assert seam.gradient(turned[None], [band])[0] > 0.1


def test_normals_point_inwards(mask):
  band = seam.band(mask)
  y, x = np.unravel_index(band.place, mask.shape)
  inwards = SIDE / 2 - 0.5 - np.stack([y, x], -1)
  inwards /= np.linalg.norm(inwards, axis=-1, keepdims=True)
  # A circle of pixels: a normal is right to about 15 degrees.
  assert (inwards * band.normal).sum(-1).min() > 0.96


@pytest.mark.parametrize("value", [False, True])
def test_mask_without_an_outline_has_no_seam(value, source):
  band = seam.band(np.full((SIDE, SIDE), value))
  found = seam.gradient(source[None], [band])
  assert np.isnan(found).all()
  assert np.isnan(seam.ratio(found, found))
