"""What lies beside a run: its clip's cameras, and speech by its stage 1."""

import numpy as np
import pytest

from pir_jax.data import synthetic
from pir_jax.data.dataset import Clip
from pir_jax.interface import opening
from pir_jax.runtime import checkpoint
from pir_jax.types import InputError
from tests.interface.small_face import SPACE
from tests.small_experiments import small


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data") / "clip"
  synthetic.write_synthetic(folder, num_frames=66)
  return Clip.open(folder)


def test_cameras_are_of_training_frames_all_over_the_clip(clip):
  cameras = opening.cameras_of(clip, 5)
  assert cameras.pose.shape == (5, 4, 4)
  frames = clip.frames("train")
  for index, frame in ((0, frames[0]), (-1, frames[-1])):
    np.testing.assert_array_equal(cameras.pose[index], clip.track.pose[frame])
  # A short clip has as many as it has.
  assert len(opening.cameras_of(clip, 1000).pose) == len(frames)


def test_the_clip_is_the_run_s_own_or_none(clip, tmp_path, monkeypatch):
  experiment = small("triplane")
  experiment.data.path = str(clip.path)
  record = {"stage": "triplane", "people": [{"sha256": clip.manifest.sha256}]}
  checkpoint.write_record(tmp_path / "triplane", record)
  monkeypatch.setattr(opening, "experiment_of", lambda record: experiment)
  assert opening.clip_of(tmp_path).path == clip.path
  assert opening.clip_of(tmp_path / "triplane").path == clip.path
  # Another video lies there now, or nothing.
  record["people"][0]["sha256"] = "1" * 64
  checkpoint.write_record(tmp_path / "triplane", record)
  assert opening.clip_of(tmp_path) is None
  experiment.data.path = str(tmp_path / "nowhere")
  assert opening.clip_of(tmp_path) is None


def test_speech_needs_stage_1(tmp_path):
  with pytest.raises(InputError, match="the run expression.*--audio"):
    opening.timeline_of(tmp_path, "speech.wav", SPACE)
