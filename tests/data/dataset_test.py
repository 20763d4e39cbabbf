"""A data set is opened once, and is what its clips are."""

import dataclasses

import numpy as np
import pytest

from pir_jax.data import dataset, manifest, sources, synthetic
from pir_jax.data.dataset import Clip, Dataset
from pir_jax.runs.experiment import Data
from pir_jax.types import ConfigError, InputError


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  root = tmp_path_factory.mktemp("data")
  for name, num_frames in (("one", 40), ("two", 30)):
    synthetic.write_synthetic(root / name, num_frames=num_frames)
  return [root / "one", root / "two"]


@pytest.fixture
def opened(monkeypatch):
  """Every folder whose manifest or track is read, in order."""
  calls = []
  for name in ("load_manifest", "load_track"):
    load = getattr(dataset, name)

    def count(folder, load=load, name=name):
      calls.append((name, folder))
      return load(folder)

    monkeypatch.setattr(dataset, name, count)
  return calls


def test_every_file_is_opened_once_whatever_is_asked(folders, opened):
  data = Dataset.open(folders)
  for split in ("train", "held_out"):
    sources.FrameSource(data, resolution=16, split=split)
    sources.SpeechSource(data, num_frames=8, split=split)
  assert data.space.identity_size == len(data.people[0]["identity"])
  assert [clip["name"] for clip in data.digest] == ["one", "two"]
  assert Dataset.open(data) is data
  assert sorted(opened) == sorted(
    (name, folder)
    for name in ("load_manifest", "load_track")
    for folder in folders
  )


def test_the_splits_share_the_stored_frames_out(folders):
  for clip in Dataset.open(folders):
    both = np.concatenate([clip.frames("train"), clip.frames("held_out")])
    np.testing.assert_array_equal(both, clip.stored)
    np.testing.assert_array_equal(
      clip.frames("held_out") >= clip.manifest.held_out[0], True
    )


def test_sources_of_an_open_clip_are_those_of_its_folder(folders):
  opened, named = (
    sources.FrameSource(data, resolution=16)
    for data in (Clip.open(folders[0]), folders[0])
  )
  assert len(opened) == len(named)
  for name, value in opened[3].items():
    np.testing.assert_array_equal(value, named[3][name])


def test_the_pooled_space_is_that_of_all_training_frames(folders):
  data = Dataset.open(folders)
  frames = np.concatenate(
    [c.track.expression[slice(*c.frame_range("train"))] for c in data]
  )
  # Manifests keep the statistics of measured frames, in JSON.
  np.testing.assert_allclose(
    data.space.expression_mean, frames.mean(0), atol=1e-5
  )
  scale = np.maximum(frames.std(0), manifest.SMALLEST_SCALE)
  np.testing.assert_allclose(data.space.expression_scale, scale, atol=1e-5)


def test_clips_of_different_face_models_are_refused(folders):
  one, two = Dataset.open(folders)
  other = dataclasses.replace(two.manifest, face_model={"sha256": "b"})
  with pytest.raises(InputError, match="two and .*one were prepared with diff"):
    _ = Dataset([one, dataclasses.replace(two, manifest=other)]).space


def test_the_first_seconds_are_trained_on_and_the_rest_is_held_out(folders):
  whole = Clip.open(folders[0])
  part = whole.trained_on(1.0)
  edge = int(np.searchsorted(whole.track.times, 1.0))
  assert part.manifest.train == [0, edge]
  assert part.manifest.held_out == [edge, len(whole.track.times)]
  rows = whole.track.expression[:edge][whole.track.present[:edge]]
  np.testing.assert_allclose(
    part.expression_stats.mean, rows.mean(0), atol=1e-5
  )
  np.testing.assert_allclose(part.expression_stats.std, rows.std(0), atol=1e-5)
  (opened,) = Data(path=str(folders[0]), train_seconds=1.0).open()
  assert opened.manifest == part.manifest
  with pytest.raises(ConfigError, match="hold out different parts"):
    Data(path=str(folders[0]), train_seconds=1.0, num_folds=2).open()
  with pytest.raises(InputError, match="before or after 100 s"):
    whole.trained_on(100.0)
