"""Synthetic clips hold what they promise: a head in view, an audible jaw."""

import numpy as np

from pir_jax.data import records, synthetic, track


def test_cameras_are_rigid_and_see_the_head_in_the_window():
  known = synthetic.synthetic_track(50)
  rotation = known.pose[:, :3, :3].astype(np.float64)
  gram = rotation @ np.swapaxes(rotation, 1, 2)
  # Stored as float32.
  np.testing.assert_allclose(gram, np.tile(np.eye(3), (50, 1, 1)), atol=1e-6)
  assert np.all(np.linalg.det(rotation) > 0)
  inverse = np.linalg.inv(known.pose)
  assert np.all(inverse[:, 2, 3] > 2)  # The head's centre is ahead.
  up = inverse @ np.array([0, 0.4, 0, 1])
  assert np.all(up[:, 1] < 0)  # World y is up, image y down.


def test_the_mouth_opens_with_the_jaw_and_the_masks_nest():
  known = synthetic.synthetic_track(50)
  frames = [synthetic.render_face(known, i, 64) for i in range(50)]
  lips = [np.sum(np.all(f.image == (120, 20, 30), -1)) for f in frames]
  jaw = known.expression[:, 0]
  assert np.corrcoef(lips, jaw)[0, 1] > 0.9  # The rest is pose and pixels.
  for frame in frames:
    assert np.all(frame.head >= frame.mask)
    assert np.all(frame.mask >= frame.mouth)
    assert 0.05 < frame.mask.mean() < 0.6
    assert not frame.head[0].any() and not frame.head[:, 0].any()


def test_the_jaw_can_be_heard(tmp_path):
  synthetic.write_synthetic(tmp_path / "me", num_frames=44, side=32)
  known, _ = track.load_track(tmp_path / "me")
  source = records.open_records(tmp_path / "me" / records.CLIPS)
  run = records.decode_clip(source[0])
  loudness = np.sqrt(np.mean(run.waveform.reshape(44, 640) ** 2, 1))
  jaw = known.expression[:, 0]
  ahead = 0.5 * (jaw + np.append(jaw[1:], jaw[-1]))  # Middle of each tick.
  assert np.corrcoef(loudness, ahead)[0, 1] > 0.95


def test_a_seed_decides_everything():
  one, same, other = (synthetic.synthetic_track(9, seed=s) for s in (1, 1, 2))
  np.testing.assert_array_equal(one.pose, same.pose)
  assert not np.array_equal(one.expression, other.expression)


def test_frames_can_be_told_apart():
  for size in ((64, 48), (33, 27)):
    codes = [
      synthetic.frame_code(synthetic.moving_disc(i, *size)) for i in range(9)
    ]
    assert codes == [0, 1, 2, 3, 4, 5, 6, 7, 0]
