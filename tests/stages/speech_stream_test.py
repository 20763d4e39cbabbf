"""Speech in pieces gives each frame as soon as it can be known."""

import math

import numpy as np
import pytest

from pir_jax.stages import speech_stream

HOP, WINDOW = 8, 20


def _stream(look_ahead=3, step=2, lengths=None):
  """The feature of a frame is its first sample; the decoder counts frames."""

  def encode(sound, length):
    if lengths is not None:
      lengths.append(int(length[0]))
    return sound.reshape(1, WINDOW, HOP)[..., :1]

  def extend(carry, features):
    count = carry + np.arange(features.shape[1])[None, :, None]
    return carry + features.shape[1], np.concatenate([features, count], -1)

  return speech_stream.SpeechStream(
    encode,
    extend,
    0,
    window=WINDOW,
    look_ahead=look_ahead,
    step=step,
    hop=HOP,
  )


def _wave(count, seed=0):
  return np.random.default_rng(seed).normal(0, 0.1, count).astype(np.float32)


def _run(stream, wave, size):
  pieces = [wave[i : i + size] for i in range(0, len(wave), size)]
  parts = [stream.push(piece) for piece in pieces] + [stream.finish()]
  return np.concatenate([x for x in parts if len(x)])


@pytest.mark.parametrize("size", [1, 7, HOP, 100, 10_000])
def test_pieces_of_any_size_give_every_frame_once(size):
  wave = _wave(83 * HOP + 3)
  out = _run(_stream(), wave, size)
  np.testing.assert_array_equal(out[:, 1], np.arange(84))
  # Up to offset and scale, which follow what was heard.
  first = wave[::HOP]
  assert np.corrcoef(out[:, 0], first)[0, 1] > 0.98


def test_a_frame_waits_for_its_look_ahead_and_no_longer():
  stream, wave = _stream(look_ahead=3, step=2), _wave(40 * HOP)
  for i in range(40):
    stream.push(wave[i * HOP : (i + 1) * HOP])
    heard = i + 1
    assert stream.num_frames == max(0, (heard - 3) // 2 * 2)


def test_sound_of_any_level_is_levelled():
  loud, quiet = (
    _run(_stream(), gain * _wave(4000 * HOP), 50 * HOP)[-500:, 0]
    for gain in (5.0, 0.2)
  )
  assert loud.std() == pytest.approx(1, rel=0.1)
  assert quiet.std() == pytest.approx(1, rel=0.4)


def test_the_encoder_is_told_how_much_is_sound():
  lengths = []
  stream = _stream(lengths=lengths)
  _run(stream, _wave(10 * HOP + 1), HOP)
  assert lengths[0] == 5 * HOP
  assert max(lengths) == 11 * HOP


def test_an_hour_is_held_no_longer_than_a_window():
  stream = _stream()
  for _ in range(500):
    stream.push(_wave(3 * HOP))
  assert len(stream._held) <= (WINDOW + 5) * HOP


def test_silence_stays_near_zero_and_nothing_gives_nothing():
  out = _run(_stream(), np.zeros(30 * HOP, np.float32), 5 * HOP)
  assert len(out) == 30 and not out[:, 0].any()
  assert len(_stream().finish()) == 0


def test_a_window_must_hold_step_and_look_ahead():
  with pytest.raises(ValueError, match="do not fit a window of 20"):
    _stream(look_ahead=19, step=2)


def test_time_is_counted_in_begun_frames():
  for count in (1, HOP - 1, HOP, HOP + 1):
    out = _run(_stream(), _wave(count), 3)
    assert len(out) == math.ceil(count / HOP)
