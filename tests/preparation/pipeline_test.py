"""One clip is written whole or not at all, and replaces only its like."""

import pathlib

import pytest

from pir_jax.data import hdtf, manifest, synthetic
from pir_jax.data.dataset import Dataset
from pir_jax.media import video_reader
from pir_jax.preparation import pipeline
from pir_jax.types import InputError


@pytest.fixture
def video(tmp_path):
  (tmp_path / "videos").mkdir()
  path = tmp_path / "videos" / "me.mp4"
  synthetic.write_video(path, num_frames=12)
  return path


@pytest.fixture
def quick(monkeypatch):
  """A synthetic face stands for the one in the video."""

  def write(video, folder, settings, cut):
    assert pathlib.Path(video).is_file()
    return synthetic.write_synthetic(folder, num_frames=22, side=16)

  monkeypatch.setattr(pipeline, "_write", write)


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def test_clip_names_what_it_was_made_of(tmp_path, video, quick):
  output = tmp_path / "made" / "me"
  made = pipeline.prepare(video, output)
  assert manifest.load_manifest(output) == made
  key = pipeline.key(video_reader.digest(video), pipeline.Settings().digest())
  assert made.preparation == key
  assert (output / "report.html").is_file()
  assert names(output.parent) == ["me"]


def test_nothing_stays_of_a_clip_that_fails(tmp_path, video, monkeypatch):
  def write(video, folder, settings, cut):
    synthetic.write_synthetic(folder, num_frames=22, side=16)
    raise InputError(f"{video} shows no face: choose another.")

  monkeypatch.setattr(pipeline, "_write", write)
  with pytest.raises(InputError, match="me.mp4 shows no face"):
    pipeline.prepare(video, tmp_path / "data")
  assert names(tmp_path) == ["videos"]
  cut = hdtf.Cut(name="RD_me_000", start=0.0, end=0.2)
  # Where the piece lay for a moment means nothing to the user.
  with pytest.raises(InputError, match=r"^RD_me_000\.mp4 shows no face"):
    pipeline.prepare(video, tmp_path / "data", cut=cut)
  assert names(tmp_path) == ["videos"]


def test_only_a_clip_is_replaced(tmp_path, video, quick):
  clip = tmp_path / "all" / "me"
  pipeline.prepare(video, clip)
  with pytest.raises(InputError, match="--overwrite"):
    pipeline.prepare(video, clip)
  before = (clip / "manifest.json").stat().st_ino
  pipeline.prepare(video, clip, overwrite=True)
  assert (clip / "manifest.json").stat().st_ino != before
  # A data set has a manifest.json too, and many clips to lose.
  (tmp_path / "all" / "manifest.json").write_text('{"kind": "data set"}')
  (tmp_path / "mine").mkdir()
  for folder in ("all", "mine"):
    with pytest.raises(InputError, match="not a prepared clip"):
      pipeline.prepare(video, tmp_path / folder, overwrite=True)
  assert names(tmp_path / "all") == ["manifest.json", "me"]


def test_piece_is_kept_with_its_clip(tmp_path, video, quick):
  cut = hdtf.Cut(name="RD_me_000", start=0.08, end=0.32)
  made = pipeline.prepare(video, tmp_path / "clip", cut=cut)
  piece = list(video_reader.read_frames(tmp_path / "clip" / pipeline.VIDEO))
  assert len(piece) == 6
  digest, settings = video_reader.digest(video), pipeline.Settings().digest()
  assert made.preparation == pipeline.key(digest, settings, cut)
  assert made.preparation != pipeline.key(digest, settings)


def test_data_set_stands_for_its_clips(tmp_path, video, quick):
  for name in ("b", "a"):
    pipeline.prepare(video, tmp_path / "all" / name, with_page=False)
  pipeline.quality_report.write(tmp_path / "all")
  paths = manifest.as_paths(tmp_path / "all")
  assert [path.name for path in paths] == ["a", "b"]
  assert manifest.as_paths(paths[0]) == [paths[0]]
  assert Dataset.open(tmp_path / "all").space.identity_size > 0
  with pytest.raises(InputError, match="data set of many"):
    manifest.load_manifest(tmp_path / "all")
