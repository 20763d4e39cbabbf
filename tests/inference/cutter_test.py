"""Windows of a short video are cut once, whichever way it plays."""

import types

import chex
import numpy as np
import pytest
import safetensors.numpy

from pir_jax.inference import cutter
from pir_jax.media import crops, video_reader
from tests.inference.reenactor_test import (
  NUM_FRAMES,
  TrackedVideo,
  clip,  # noqa: F401 (a fixture)
)

SIDE, RESOLUTION = 64, 32


@pytest.fixture
def cut(clip, monkeypatch, tmp_path):  # noqa: F811
  """Cuts all frames with a face, last first; counts what is made anew."""
  monkeypatch.setenv("PIR_JAX_KEEP", str(tmp_path))
  frames = [image for _, image in video_reader.read_frames(clip.path)]
  made = {"masks": 0, "windows": 0}
  crop_window = crops.crop_window

  class Counting(TrackedVideo):
    def face_masks(self, frames, side):
      made["masks"] += len(frames)
      return super().face_masks(frames, side)

  def count(*arguments):
    made["windows"] += len(arguments) == 3  # A border's ring has a filter.
    return crop_window(*arguments)

  monkeypatch.setattr(crops, "crop_window", count)
  tracked = Counting(*clip)._replace(model=types.SimpleNamespace(sha256="a"))
  wanted = np.flatnonzero(clip.track.present)[::-1].tolist()

  def run(wanted=wanted):
    made.update(masks=0, windows=0)
    mine = cutter.Cutter(tracked, SIDE, RESOLUTION)
    for _ in range(2):
      cuts = {number: mine.cut(number, frames[number]) for number in wanted}
    return cuts, dict(made)

  return run


NUM_PRESENT = NUM_FRAMES - 4
ONCE = {"masks": NUM_PRESENT, "windows": NUM_PRESENT}


def test_the_next_time_nothing_is_made_anew(cut):
  first, made = cut()
  assert made == ONCE
  again, made = cut()
  assert made == {"masks": 0, "windows": 0}
  for number, mine in first.items():
    chex.assert_trees_all_equal(again[number], mine, strict=True)


def test_windows_of_a_part_of_the_video_are_not_kept(cut):
  cut([0, 1, 2])
  assert cut()[1] == ONCE


def test_a_long_video_is_cut_again_and_not_kept(cut, monkeypatch):
  monkeypatch.setattr(cutter, "_MAX_BYTES", 10)
  first, made = cut()
  assert made["windows"] == 2 * NUM_PRESENT
  again, made = cut()
  assert made["windows"] == 2 * NUM_PRESENT
  for number, mine in first.items():
    chex.assert_trees_all_equal(again[number], mine, strict=True)


@pytest.mark.parametrize(
  "change",
  [
    lambda arrays: arrays.pop("0.image"),
    lambda arrays: arrays.update(odd=np.zeros(3)),
    lambda arrays: arrays.update({"0.cover": np.zeros((3, 3), bool)}),
    lambda arrays: [arrays.pop(x) for x in [*arrays] if x.startswith("0.")],
  ],
)
def test_what_is_no_such_window_is_made_again(cut, tmp_path, change):
  cut()
  (file,) = tmp_path.rglob("windows.safetensors")
  arrays = safetensors.numpy.load_file(file)
  change(arrays)
  safetensors.numpy.save_file(arrays, file)
  assert cut()[1] == ONCE
