"""What is predicted goes to the frames it belongs to."""

import numpy as np
import pytest

from pir_jax.data import sources, synthetic
from pir_jax.data.dataset import Clip, Dataset
from pir_jax.runs import audio_expressions
from pir_jax.runs import run as run_lib
from pir_jax.runs.experiment import Data, Experiment
from pir_jax.runtime import loop
from pir_jax.stages import augmentation, inpainting, triplane
from pir_jax.types import SAMPLE_RATE, InputError

NUM = len(synthetic.NAMES)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
  folder = tmp_path_factory.mktemp("hearing") / "clip"
  synthetic.write_synthetic(folder, num_frames=40)
  return folder


def predict_ticks(waveform):
  """Counts the ticks: coefficient e of tick k is k + e."""
  num = len(waveform) * 25 // SAMPLE_RATE
  return np.float32(np.arange(num)[:, None] + np.arange(NUM))


def test_frames_get_the_tick_of_their_time(clip):
  predicted, known = audio_expressions.expressions(
    Clip.open(clip), predict_ticks
  )
  track = Clip.open(clip).track
  assert known.all()
  # The clip runs at the rate of the ticks.
  np.testing.assert_allclose(
    predicted[:, 0], np.arange(len(track.times)), atol=1e-3
  )
  np.testing.assert_allclose(predicted[:, 1] - predicted[:, 0], 1, atol=1e-4)


def test_a_silent_clip_has_nothing_to_hear(tmp_path):
  synthetic.write_synthetic(tmp_path / "mute", num_frames=30, sound=False)
  predicted, known = audio_expressions.expressions(
    Clip.open(tmp_path / "mute"), predict_ticks
  )
  assert not known.any() and predicted.shape == (30, NUM)


def _experiment(folder, stage):
  return Experiment(
    stage=stage,
    data=Data(path=str(folder)),
    loop=loop.Config(num_steps=1),
  )


def test_the_table_has_a_row_for_every_training_frame(
  clip, tmp_path, monkeypatch
):
  class Stage:
    def predict(self, state, waveform, identity, stats):
      assert state == "state" and len(identity) == 3 and len(stats.mean) == NUM
      return predict_ticks(waveform)

  data = Dataset.open(clip)
  run = run_lib.Run(None, Stage(), "state", data.space, 1, [])
  asked = []
  monkeypatch.setattr(
    audio_expressions, "open_run", lambda p: asked.append(p) or run
  )
  config = inpainting.Config(augmentation=augmentation.Config(predicted=0.5))
  table = audio_expressions.training_table(
    _experiment(clip, config), data, tmp_path / "inpainting"
  )
  frames = data[0].frames("train")
  source = sources.FrameSource(clip, resolution=16)
  assert len(table) == len(source) == len(frames)
  assert [source[i]["index"] for i in range(3)] == list(frames[:3])
  np.testing.assert_allclose(table[:, 0], frames, atol=1e-3)
  assert asked == [tmp_path.resolve() / "expression"]


def test_stage_1_is_asked_only_where_it_is_wanted(clip, tmp_path):
  data = Dataset.open(clip)
  for stage in (inpainting.Config(), triplane.Config()):
    experiment = _experiment(clip, stage)
    assert (
      audio_expressions.training_table(experiment, data, tmp_path / "x") is None
    )
  config = inpainting.Config(augmentation=augmentation.Config(predicted=0.5))
  with pytest.raises(InputError, match="augmentation.predicted=0"):
    audio_expressions.training_table(
      _experiment(clip, config), data, tmp_path / "x"
    )


def test_several_clips_are_predicted_one_after_another(
  clip, tmp_path, monkeypatch
):
  synthetic.write_synthetic(tmp_path / "other", num_frames=30, seed=3)
  data = Dataset.open([clip, tmp_path / "other"])

  class Stage:
    def predict(self, state, waveform, identity, stats):
      del state, stats
      return predict_ticks(waveform) + 1000 * identity[0]

  run = run_lib.Run(None, Stage(), "state", data.space, 1, [])
  monkeypatch.setattr(audio_expressions, "open_run", lambda place: run)
  config = inpainting.Config(augmentation=augmentation.Config(predicted=0.5))
  table = audio_expressions.training_table(
    _experiment(clip, config), data, tmp_path / "inpainting"
  )
  source = sources.FrameSource(data, resolution=16)
  assert len(table) == len(source)
  items = (source[i] for i in range(len(source)))
  for row, item in zip(table, items, strict=True):
    want = item["index"] + 1000 * item["identity"][0]
    np.testing.assert_allclose(row[0], want, rtol=1e-4, atol=1e-2)
