"""The expression stage's report: rows are of what they say.

k ticks, e coefficients.
"""

import numpy as np
import pytest

from pir_jax.data import speech_augmentation, synthetic
from pir_jax.data.dataset import Clip
from pir_jax.evaluation import expression
from pir_jax.face import morphable
from pir_jax.media import plots, speech_waveform
from pir_jax.runs.run import Run
from pir_jax.types import Cameras, ExpressionStats, FaceSpace, InputError

NUM_TICKS = 60
MODEL = morphable.FaceModel(*[None] * len(morphable.FaceModel._fields))
JAW = 0


class Jaw:
  """A head whose lips are a point each, and the jaw lowers one of them."""

  def __init__(self, model, identity):
    del model, identity

  def lip_vertices(self, expression):
    zero = np.zeros(len(expression))
    lower = np.stack([zero, -expression[:, JAW], zero], -1)
    return np.stack([np.zeros_like(lower), lower], 1)

  def opening(self, expression):
    return expression[:, JAW].astype(np.float64)

  def mouth(self, expression, cameras):
    del cameras
    return self.lip_vertices(expression)[..., :2]


def loudness(waveform):
  ticks = waveform.reshape(-1, speech_augmentation.HOP)
  return np.sqrt((ticks**2).mean(1))


class LoudnessStage:
  """A stage that opens the jaw as far as a tick is loud."""

  def predict(self, state, waveform, identity, stats):
    del state, identity, stats
    opening = loudness(waveform)
    return np.stack([opening, 0 * opening], -1)


def make_passage():
  rng = np.random.default_rng(0)
  volume = rng.uniform(0.2, 1, NUM_TICKS).repeat(speech_augmentation.HOP)
  waveform = speech_waveform.normalize(
    np.float32(volume * rng.normal(size=volume.shape))
  )
  fitted = np.stack([2 * loudness(waveform), np.zeros(NUM_TICKS)], -1)
  return expression.Passage(
    source="me.mp4",
    waveform=waveform,
    fitted=fitted,
    held_out=np.arange(NUM_TICKS) >= 30,
    identity=np.zeros(3, np.float32),
    stats=ExpressionStats(fitted.mean(0), fitted.std(0)),
    cameras=Cameras(np.zeros((NUM_TICKS, 4, 4)), np.zeros((NUM_TICKS, 3, 3))),
  )


@pytest.fixture
def run(monkeypatch):
  monkeypatch.setattr(expression, "Head", Jaw)
  space = FaceSpace(3, ("jaw", "lips"), np.zeros(2), np.ones(2))
  return Run(None, LoudnessStage(), None, space, 0, [])


def test_rows_say_what_follows_the_speech(run):
  rows, openings = expression.measure(make_passage(), run, MODEL)
  ours = rows[expression.OURS]
  # It predicts exactly half of the fitted opening.
  assert ours.correlation > 0.999 and abs(ours.spread - 0.5) < 1e-6
  assert ours.below == 1.0 and ours.rest == 0.0
  assert rows[expression.SHUFFLED].correlation < 0.5
  assert rows[expression.MEAN].correlation == 0.0
  assert rows[expression.MEAN].spread < 1e-9  # Rounding of a mean.
  target = openings[expression.TARGET]
  kept = target[30:]
  # The worst of the two lip points is the moving one: half the fitted opening.
  np.testing.assert_allclose(ours.vertex, kept.mean() / 2, rtol=1e-5)
  assert all(len(values) == NUM_TICKS for values in openings.values())


def test_another_voice_has_no_target(run):
  passage = make_passage()
  row, opening = expression.measure_voice(
    passage.waveform[: 40 * speech_augmentation.HOP], passage, run, MODEL
  )
  assert np.isnan(row.correlation) and np.isnan(row.mouth)
  assert row.rest == 0.0 and len(opening) == 40


def test_rows_survive_json_and_the_mean_of_passages():
  one = expression.Measured(1.0, 2.0, 0.5)
  assert str(expression.from_plain(expression.to_plain(one))) == str(one)
  other = expression.Measured(3.0, 4.0, 0.7)
  mean = expression.pooled([{"ours": one}, {"ours": other}])["ours"]
  np.testing.assert_allclose(mean[:3], [2.0, 3.0, 0.6])
  text = expression.as_text({"ours": one}, "me.mp4")
  assert text.splitlines()[-1].split() == "ours 1.00 2.00 0.50 - - -".split()


def test_a_clip_without_speech_is_refused(tmp_path):
  synthetic.write_synthetic(tmp_path / "me", sound=False)
  with pytest.raises(InputError, match="no speech with a face"):
    expression.passages(Clip.open(tmp_path / "me"))


def test_passages_are_the_tail_of_a_clip(tmp_path):
  made = synthetic.write_synthetic(tmp_path / "me", num_frames=66)
  (passage,) = expression.passages(Clip.open(tmp_path / "me"))
  assert passage.held_out.sum() == 6 and passage.held_out[60:].all()
  np.testing.assert_allclose(passage.stats.mean, made.expression_mean)
  assert passage.cameras.pose.shape == (66, 4, 4)


def test_curves_show_every_line():
  time = np.arange(50) / 25
  picture = np.asarray(
    plots.curves(
      {"me": {"true": np.sin(time), "ours": np.cos(time)}},
      frame_rate=25.0,
      unit="mm",
    )
  )
  assert picture.shape == (220, 900, 3)
  black = (picture == 0).all(-1)
  red = (picture[..., 0] > 150) & (picture[..., 1:] < 80).all(-1)
  # Each line crosses the whole width.
  for colour in (black, red):
    columns = np.flatnonzero(colour[44:198].any(0))
    assert columns.min() < 60 and columns.max() > 880
