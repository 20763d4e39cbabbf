"""Speech at one level; pauses move lips and sound together.

k ticks, e coefficients.
"""

import numpy as np
import pytest

from pir_jax.data import pipelines, speech_augmentation, synthetic
from pir_jax.media import speech_waveform

CLOSED = np.array([-1.0, 2.0], np.float32)


def make_window(num_ticks=40):
  """Every tick's sound is its own number, and so is its expression."""
  number = np.arange(1, num_ticks + 1, dtype=np.float32)
  return {
    "waveform": number.repeat(speech_augmentation.HOP),
    "offset": np.int32(0),
    "length": np.int32(num_ticks * speech_augmentation.HOP),
    "expression": np.stack([number, -number], -1),
    "valid": np.ones(num_ticks, np.float32),
    "identity": np.ones(3, np.float32),
  }


def middle(waveform):
  """The sound in the middle of each tick, where nothing fades."""
  return waveform.reshape(-1, speech_augmentation.HOP)[
    :, speech_augmentation.HOP // 2
  ]


def test_level_does_not_depend_on_loudness_or_offset():
  wave = np.random.default_rng(0).normal(size=4000)
  one = speech_waveform.normalize(np.float32(wave))
  # float32 samples against sums in float64.
  assert abs(one.mean()) < 1e-6 and abs(one.std() - 1) < 1e-6
  other = speech_waveform.normalize(np.float32(0.01 * wave + 0.3))
  np.testing.assert_allclose(other, one, atol=1e-4)
  np.testing.assert_array_equal(
    speech_waveform.normalize(np.full(9, 0.5, np.float32)), 0
  )


@pytest.mark.parametrize(("start", "length"), [(0, 8), (13, 20), (39, 12)])
def test_what_is_not_in_the_pause_stays_in_step(start, length):
  window = make_window()
  hiss = np.full(length * speech_augmentation.HOP, 0.25, np.float32)
  out = speech_augmentation.insert(window, start, hiss, CLOSED)
  for name in ("waveform", "expression", "valid"):
    assert out[name].shape == window[name].shape
  inside = np.zeros(40, bool)
  inside[start : start + length] = True
  sound = middle(out["waveform"])
  np.testing.assert_array_equal(sound[inside], 0.25)
  # Sound and lips hold the same number: they were moved alike.
  np.testing.assert_array_equal(sound[~inside], out["expression"][~inside, 0])
  assert out["valid"].all()


def test_lips_close_and_open_again_without_a_jump():
  hiss = np.zeros(20 * speech_augmentation.HOP, np.float32)
  out = speech_augmentation.insert(make_window(), 10, hiss, CLOSED)[
    "expression"
  ]
  share = speech_augmentation.closing(20)
  assert (
    np.all(share[speech_augmentation.RAMP : -speech_augmentation.RAMP] == 1)
    and share[0] == 0.25
  )
  np.testing.assert_allclose(out[13:27], np.tile(CLOSED, (14, 1)))
  step = np.abs(np.diff(out[9:31, 0]))
  # From 10 to -1 in RAMP + 1 even steps, give or take the drift of the ends.
  assert step.max() < 11 / (speech_augmentation.RAMP + 1) + 0.5


def test_frames_without_a_face_teach_no_ramp():
  window = make_window()
  window["valid"][:] = 0
  hiss = np.zeros(12 * speech_augmentation.HOP, np.float32)
  valid = speech_augmentation.insert(window, 5, hiss, CLOSED)["valid"]
  ramp = speech_augmentation.RAMP
  assert valid[5 + ramp : 17 - ramp].all()
  assert not valid[: 5 + ramp].any() and not valid[17 - ramp :].any()


def test_the_window_given_is_not_changed():
  window = make_window()
  before = {name: value.copy() for name, value in window.items()}
  speech_augmentation.insert(
    window, 7, np.zeros(8 * speech_augmentation.HOP, np.float32), CLOSED
  )
  for name, value in before.items():
    np.testing.assert_array_equal(window[name], value)


def test_share_of_windows_and_hiss():
  config = speech_augmentation.Config(
    share=0.5, shortest=8, longest=10, hiss=-30.0
  )
  quiet = 0
  for seed in range(200):
    window = make_window() | {"closed": CLOSED}
    out = speech_augmentation.at_random(
      window, np.random.default_rng(seed), config
    )
    assert "closed" not in out
    silent = np.abs(middle(out["waveform"])) < 0.5
    quiet += silent.any()
    assert silent.sum() in (0, *range(1, 11))
  # A binomial of 200 halves lies within 4 deviations of its mean.
  assert abs(quiet - 100) < 4 * np.sqrt(50)


def test_some_windows_are_nothing_but_silence():
  config = speech_augmentation.Config(share=0.25, silent=0.25)
  kinds = {"silent": 0, "paused": 0}
  for seed in range(200):
    window = make_window() | {"closed": CLOSED}
    out = speech_augmentation.at_random(
      window, np.random.default_rng(seed), config
    )
    quiet = np.abs(middle(out["waveform"])) < 0.5
    if (out["expression"] == CLOSED).all():
      kinds["silent"] += 1
      assert quiet.all() and out["valid"].all()
      assert out["waveform"].shape == window["waveform"].shape
    else:
      kinds["paused"] += quiet.any()
  # Binomials of 200 quarters lie within 4 deviations of their mean.
  for count in kinds.values():
    assert abs(count - 50) < 4 * np.sqrt(200 * 0.25 * 0.75)


def test_pauses_come_back_the_same_after_a_resume(tmp_path):
  synthetic.write_synthetic(tmp_path / "me", num_frames=88)
  dataset = pipelines.speech_dataset(
    tmp_path / "me",
    num_frames=30,
    batch_size=2,
    pauses=speech_augmentation.Config(share=1.0),
  )
  iterator = iter(dataset)
  next(iterator)
  state = iterator.get_state()
  want = next(iterator)
  other = iter(dataset)
  other.set_state(state)
  for a, b in zip(want, next(other), strict=True):
    np.testing.assert_array_equal(a, b)
  plain = pipelines.speech_dataset(tmp_path / "me", num_frames=30, batch_size=2)
  first = next(iter(plain))
  assert not np.array_equal(first.waveform, next(iter(dataset)).waveform)
