"""What the probe is shown is what the network is shown."""

import numpy as np
import pytest

from pir_jax.data import synthetic, track
from pir_jax.data.dataset import Clip
from pir_jax.evaluation import mask_leakage
from pir_jax.metrics import leak


@pytest.mark.parametrize("side", [24, 64, 96, 128, 200, 512])
def test_shrinking_takes_means_of_whole_blocks(side):
  picture = np.random.default_rng(0).random((side, side, 3), np.float32)
  small = mask_leakage._shrink(picture)
  assert side % len(small) == 0
  assert len(small) == side or len(small) >= mask_leakage.SIDE
  # Sums in float32.
  np.testing.assert_allclose(small.mean(), picture.mean(), rtol=1e-4)


def test_masked_frames_hold_nothing_from_under_the_mask(tmp_path):
  data = tmp_path / "data"
  synthetic.write_synthetic(data, num_frames=24)
  seen, stored = track.load_track(data)
  points = np.random.default_rng(0).random((24, 468, 2), np.float32)
  track.save_track(data, seen._replace(landmarks=points), stored)
  # A tail of so few frames is no evidence either way.
  assert not mask_leakage.read(Clip.open(data), 32)
  assert "too few" in mask_leakage.as_text({})
  shown, opening, num_train = mask_leakage._shown(Clip.open(data), 32)
  assert set(shown) == {
    mask_leakage.MASKED,
    mask_leakage.OUTLINE,
    mask_leakage.OPEN,
  }
  assert 0 < num_train < len(opening) == len(shown[mask_leakage.OPEN])
  inside = shown[mask_leakage.OUTLINE][..., 0] == 1
  masked, whole = shown[mask_leakage.MASKED], shown[mask_leakage.OPEN]
  assert inside.any() and not masked[inside].any()
  outside = shown[mask_leakage.OUTLINE][..., 0] == 0
  np.testing.assert_array_equal(masked[outside], whole[outside])


def test_text_tells_what_is_read_and_how_few_frames():
  chance = leak.Reading(0.1, -0.2, 0.0, 0.3, 18)
  reads = leak.Reading(0.9, 0.8, 0.0, 0.3, 18)
  pair = mask_leakage.Readings(chance, chance)
  table = {
    mask_leakage.MASKED: pair,
    mask_leakage.OPEN: mask_leakage.Readings(reads, chance),
  }
  text = mask_leakage.as_text(table)
  lines = {line[:28].strip(): line for line in text.splitlines()}
  assert lines[mask_leakage.MASKED].split()[-1] == "chance"
  assert "reads" not in lines[mask_leakage.MASKED]
  assert "reads" in lines[mask_leakage.OPEN]
  assert "18 held-out frames, few" in text
  # A control that fails takes the proof away, in that part alone.
  assert "lips read off, folds: not even" in text
  assert "lips read off, tail: not even" not in text
  # Nor are the figures of that part shown.
  assert (
    len(lines[mask_leakage.MASKED].split())
    == len(mask_leakage.MASKED.split()) + 5
  )
