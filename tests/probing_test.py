"""What the probe is shown is what the network is shown."""

import numpy as np
import pytest

from pir_jax import probing
from pir_jax.data import synthetic, track
from pir_jax.metrics import leak


@pytest.mark.parametrize("side", [24, 64, 96, 128, 200, 512])
def test_shrinking_takes_means_of_whole_blocks(side):
  picture = np.random.default_rng(0).random((side, side, 3), np.float32)
  small = probing._shrink(picture)
  assert side % len(small) == 0
  assert len(small) == side or len(small) >= probing.SIDE
  # Sums in float32.
  np.testing.assert_allclose(small.mean(), picture.mean(), rtol=1e-4)


def test_masked_frames_hold_nothing_from_under_the_mask(tmp_path):
  data = tmp_path / "data"
  synthetic.write_synthetic(data, num_frames=24)
  seen, stored = track.load_track(data)
  points = np.random.default_rng(0).random((24, 468, 2), np.float32)
  track.save_track(data, seen._replace(landmarks=points), stored)
  # A tail of so few frames is no evidence either way.
  assert not probing.read(data, 32)
  assert "too few" in probing.as_text({})
  shown, opening, num_train = probing._shown(data, 32)
  assert set(shown) == {probing.MASKED, probing.OUTLINE, probing.OPEN}
  assert 0 < num_train < len(opening) == len(shown[probing.OPEN])
  inside = shown[probing.OUTLINE][..., 0] == 1
  masked, whole = shown[probing.MASKED], shown[probing.OPEN]
  assert inside.any() and not masked[inside].any()
  outside = shown[probing.OUTLINE][..., 0] == 0
  np.testing.assert_array_equal(masked[outside], whole[outside])


def test_text_tells_what_is_read_and_how_few_frames():
  chance = leak.Reading(0.1, -0.2, 0.0, 0.3, 18)
  reads = leak.Reading(0.9, 0.8, 0.0, 0.3, 18)
  pair = probing.Readings(chance, chance)
  table = {probing.MASKED: pair, probing.OPEN: probing.Readings(reads, chance)}
  text = probing.as_text(table)
  lines = {line[:28].strip(): line for line in text.splitlines()}
  assert lines[probing.MASKED].split()[-1] == "chance"
  assert "reads" not in lines[probing.MASKED]
  assert "reads" in lines[probing.OPEN]
  assert "18 held-out frames, few" in text
  # A control that fails takes the proof away, in that part alone.
  assert "folds: not even" in text and "tail: not even" not in text
