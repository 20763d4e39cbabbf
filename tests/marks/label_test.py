"""The label stands in a corner, is legible on any ground, and fits."""

import numpy as np
import pytest

from pir_jax.marks import label


@pytest.mark.parametrize("ground", [0, 128, 255])
@pytest.mark.parametrize("size", [(512, 512), (1080, 1920), (1920, 1080)])
def test_it_is_legible_on_any_ground_and_leaves_the_rest(ground, size):
  frame = np.full((*size, 3), ground, np.uint8)
  before = frame.copy()
  result = label.put(frame)
  np.testing.assert_array_equal(frame, before)
  height, width = size
  assert (result[: height - height // 12] == ground).all()
  assert (result[:, : width // 2] == ground).all()
  corner = result[-height // 12 :, width // 2 :]
  changed = corner[(corner != ground).any(-1)] if ground != 255 else corner
  assert int(changed.max()) - int(corner.min()) > 120


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7), (32, 32)])
def test_it_fits_into_frames_of_any_size(size):
  frame = np.full((*size, 3), 200, np.uint8)
  assert label.put(frame).shape == frame.shape
