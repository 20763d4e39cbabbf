"""Cross-validation over speakers: shifts are found, means are of speakers."""

import numpy as np
import pytest

from pir_jax.data import speech_augmentation
from pir_jax.evaluation import expression, held_out_speakers
from pir_jax.face import morphable
from pir_jax.metrics import sync
from pir_jax.preparation import phonemes
from pir_jax.runs.run import Run
from pir_jax.types import FRAME_RATE, Cameras, ExpressionStats

NUM_TICKS = 100
MODEL = morphable.FaceModel(*[None] * len(morphable.FaceModel._fields))
OPENING = np.random.default_rng(0).uniform(0, 1, NUM_TICKS).astype(np.float32)


class Jaw:
  """A head whose mouth is a point that the only coefficient lowers."""

  def __init__(self, model, identity):
    del model, identity

  def opening(self, expression):
    return expression[:, 0].astype(np.float64)

  def mouth(self, expression, cameras):
    del cameras
    # Two points: the set is centred.
    lower = np.stack([0 * expression[:, 0], expression[:, 0]], -1)
    return np.stack([-lower, lower], 1)


class Stage:
  """Opens the jaw as the sound says, by its first sample of every tick."""

  def predict(self, state, waveform, identity, stats):
    del state, identity, stats
    return waveform[:: speech_augmentation.HOP, None] + 5.0


def make_row(monkeypatch, late, recognise=None):
  monkeypatch.setattr(expression, "Head", Jaw)
  passage = expression.Passage(
    source="me.mp4",
    waveform=np.repeat(np.roll(OPENING, late), speech_augmentation.HOP),
    fitted=OPENING[:, None],
    held_out=(np.arange(NUM_TICKS) >= 10) & (np.arange(NUM_TICKS) < 95),
    identity=np.zeros(3, np.float32),
    stats=ExpressionStats(
      OPENING[10:95].mean(keepdims=True), np.ones(1, np.float32)
    ),
    cameras=Cameras(np.zeros((NUM_TICKS, 4, 4)), np.zeros((NUM_TICKS, 3, 3))),
  )
  run = Run(None, Stage(), None, None, 0, [])
  return held_out_speakers.measure_passage(passage, "Me", run, MODEL, recognise)


@pytest.mark.parametrize("late", [-8, -3, 0, 5])
def test_sound_out_of_step_is_measured_in_step(monkeypatch, late):
  row = make_row(monkeypatch, late)
  assert row.shift == late and row.correlation > 0.999
  assert abs(row.shuffled) < 0.2
  assert (row.in_place > 0.999) is (late == 0)
  # What it adds everywhere is taken off again.
  np.testing.assert_allclose(row.gain, 1.0, atol=1e-5)
  assert row.seconds == 85 / 25


def test_closures_are_measured_in_step(monkeypatch):
  """At sounds that come late, lips of the fit and ours are the same."""
  wide, closed = OPENING[20:80].argmax() + 20, OPENING[20:80].argmin() + 20

  def recognise(waveform):
    del waveform
    middle = (np.array([wide, closed]) + 3) / FRAME_RATE + sync.LEAD
    return phonemes.Phones(("AA", "M"), middle)

  row = make_row(monkeypatch, 3, recognise)
  fitted = OPENING[wide], OPENING[closed]
  np.testing.assert_allclose(row.sounds_of_fit, fitted)
  # This stage adds 5 everywhere.
  np.testing.assert_allclose(row.sounds, np.add(fitted, 5), rtol=1e-5)
  ours, true = held_out_speakers.closure([row, row])
  np.testing.assert_allclose(true, fitted[0] / fitted[1])
  assert 1 < ours < true
  row = make_row(monkeypatch, 0)
  assert np.isnan(held_out_speakers.closure([row])).all()


def test_shuffled_speech_keeps_the_silence_around_it():
  speech = np.random.default_rng(0).uniform(0.5, 1, size=60)
  ticks = np.concatenate([np.zeros(10), speech, np.zeros(5)]).astype(np.float32)
  waveform = np.repeat(ticks, held_out_speakers.HOP)
  rolled = held_out_speakers._rolled(waveform, 10, 70, held_out_speakers.HOP)
  want = np.concatenate([np.zeros(10), np.roll(speech, 1), np.zeros(5)])
  np.testing.assert_array_equal(
    rolled[:: held_out_speakers.HOP], want.astype(np.float32)
  )
  assert held_out_speakers._speech(waveform) == (10, 70)


def test_shifts_are_kept_only_where_lips_follow(monkeypatch):
  row = make_row(monkeypatch, 5)
  assert held_out_speakers.shift_of(row, 0.3) == 5
  for weak in 0.2, np.nan:
    assert (
      held_out_speakers.shift_of(row._replace(correlation=weak), 0.3) is None
    )


def test_a_speaker_counts_once_however_many_clips(monkeypatch):
  row = make_row(monkeypatch, 0)
  rows = [row._replace(correlation=1.0)] * 9
  rows.append(row._replace(correlation=0.0, speaker="Other"))
  mean, low, high = held_out_speakers.interval(rows, lambda r: r.correlation)
  assert (mean, low, high) == (0.5, 0.0, 1.0)
  text = held_out_speakers.as_text(rows, {"free": rows, "none": []})
  assert (
    "free, 2 speakers: r 0.50 (0.00 to 1.00)" in text and "none" not in text
  )
