"""The packaged clip, all the way through preparation."""

import dataclasses
import importlib

import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from pir_jax import assets
from pir_jax.data import manifest, sources, track
from pir_jax.face import masks
from pir_jax.preparation import pipeline
from pir_jax.types import InputError

# `pir_jax.prepare` is the function of that name.
command = importlib.import_module("pir_jax.prepare")


@pytest.mark.slow
def test_packaged_clip_is_fitted_in_every_frame(tmp_path):
  """Two faces, 12 frames a second, and a picture that zooms."""
  made = pipeline.prepare(assets.fetch("demo_video"), tmp_path / "data")
  assert made.num_with_face + made.num_interpolated == made.num_frames == 105
  # The speaker's face is 54 px high: 2.5 % of it is 1.35 px.
  assert made.fit_error_relative < 0.025
  assert made.rate == "12/1"
  assert made.masks == dataclasses.asdict(masks.Config())
  known, stored = track.load_track(tmp_path / "data")
  assert len(stored) == made.num_records == 105
  # The speaker, not the portrait behind him: the larger face.
  height = np.nanmedian(known.face_height)
  assert 45 < height < 65
  frames = sources.FrameSource(tmp_path / "data", resolution=64)
  for item in (frames[0], frames[len(frames) - 1]):
    covered = item["mask"].mean()
    # The mask is most of the window's middle and never reaches its corners.
    assert 0.2 < covered < 0.8
    assert item["mask"][0, 0] == 0 and item["mask"][-1, -1] == 0
    assert (item["mouth"] > 0.5).sum() < (item["mask"] > 0.5).sum() / 3
    # What is painted lies on the head, but for the neck under the chin.
    assert (item["mask"] > 0.5)[item["head"] > 0.5].mean() > 0.3


def test_report_is_readable():
  made = manifest.Manifest(
    source="me.mp4",
    sha256="0",
    width=640,
    height=480,
    rate="30000/1001",
    duration=4.0,
    num_frames=120,
    num_with_face=118,
    num_interpolated=2,
    num_records=100,
    num_clips=1,
    resolution=256,
    window_side=[250.2, 256.0],
    fit_error_px=1.25,
    fit_error_relative=0.0101,
    train=[0, 109],
    held_out=[109, 120],
    expression_names=["jawOpen"],
    expression_mean=[0.0],
    expression_std=[1.0],
    expression_closed=[0.0],
    identity=[0.0],
    masks={},
    audio_seconds=4.0,
  )
  text = manifest.report(made)
  assert "face in 118 of 120 frames" in text
  assert "1.01 % of face height" in text


@pytest.mark.parametrize(
  "given, says",
  [
    ({}, "Missing required flags: --video or --input, --output"),
    ({"video": "v.mp4"}, "--output"),
    ({"video": "v.mp4", "input": ["w"], "output": "o"}, "exclude each other"),
    ({"input": ["nowhere"], "output": "o"}, "nowhere does not exist"),
    ({"hdtf": ".", "input": ["a", "b"], "output": "o"}, "--input=FOLDER once"),
  ],
)
def test_flags_that_do_not_go_together(given, says):
  flags.FLAGS(["prepare"])
  with flagsaver.flagsaver(**given):
    with pytest.raises(InputError, match=says):
      command.main()


def test_missing_videos_of_hdtf_are_listed(tmp_path, capsys):
  (tmp_path / "RD_annotion_time.txt").write_text("Radio1.mp4 00:01-00:02\n")
  flags.FLAGS(["prepare"])
  with flagsaver.flagsaver(
    hdtf=str(tmp_path), input=[str(tmp_path)], output=str(tmp_path / "o")
  ):
    with pytest.raises(InputError, match="RD_Radio1.mp4"):
      command.main()
  assert "1 videos are missing: RD_Radio1" in capsys.readouterr().out
