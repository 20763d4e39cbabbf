"""The verdict judges the picture: what hides, cuts, burns or turns a face."""

import av
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from pir_jax import assets
from pir_jax.data import synthetic
from pir_jax.face import detector, eyelids, landmarks, masks
from pir_jax.media import video_reader
from pir_jax.preparation import (
  pipeline,
  quality_rules,
  tracking,
  visibility,
)
from tests.preparation.quality_rules_test import GOOD

NUM, SIDE = 20, 400


@pytest.fixture(scope="module")
def close_up():
  """The packaged clip's speaker, his face 250 px high."""
  with av.open(str(assets.fetch("demo_video"))) as video:
    frames = [f.to_ndarray(format="rgb24") for f in video.decode(video=0)]
  tracker, pictures = detector.Tracker(), []
  for frame in frames[:NUM]:
    # The camera follows the nose, so that what lies over the mouth stays there.
    points, _ = tracker.landmarks(frame)
    region = detector.Region(*map(float, points[1, :2]), 86.0, 0.0)
    pictures.append(detector.sample(frame, region, SIDE))
  return pictures


def boxed(frame, colour=(128, 128, 128)):
  frame = frame.copy()
  frame[215:340, 100:300] = colour
  return frame


def hand(frame):
  """Covers no more than the mouth, in the colour of the forehead."""
  frame = frame.copy()
  frame[222:305, 135:265] = frame[110:112, 195:205].mean((0, 1))
  return frame


def pixelated(frame):
  picture = Image.fromarray(frame)
  small = picture.resize((14, 14), Image.Resampling.BOX)
  tiles = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.NEAREST))
  mixed = frame.copy()
  mixed[215:340, 100:300] = tiles[215:340, 100:300]
  return mixed


def subtitled(frame):
  picture = Image.fromarray(frame)
  ImageDraw.Draw(picture).text(
    (200, 290),
    "and so we have to go there",
    font=ImageFont.load_default(size=26),
    fill=(255, 255, 255),
    stroke_width=2,
    stroke_fill=(0, 0, 0),
    anchor="mm",
  )
  return np.asarray(picture)


def drawn(frame):
  picture = Image.fromarray(frame).filter(ImageFilter.ModeFilter(11))
  return np.asarray(picture.quantize(8).convert("RGB"))


def brighter(frame, by, contrast):
  light = (frame / 255 - 0.5) * contrast + 0.5 + by
  return (255 * light.clip(0, 1)).astype(np.uint8)


def dark(frame):
  noise = np.random.default_rng(0).normal(0, 3, frame.shape)
  return (0.06 * frame + noise).clip(0, 255).astype(np.uint8)


def turned(frame):
  return np.ascontiguousarray(frame[::-1, ::-1])


CASES = {
  "visible": (lambda frame: frame, None),
  "grey box": (boxed, "hidden"),
  "red box": (lambda frame: boxed(frame, (170, 30, 40)), "hidden"),
  "hand": (hand, "hidden"),
  "pixelated": (pixelated, "hidden"),
  "subtitles": (subtitled, "text"),
  "cut at the side": (lambda frame: frame[:, 150:].copy(), "cut"),
  "cut below": (lambda frame: frame[:290].copy(), "cut"),
  "overexposed": (lambda frame: brighter(frame, 0.75, 2.2), "white"),
  "black": (dark, "light"),
  "drawing": (drawn, "even"),
  "on its side": (lambda frame: np.rot90(frame).copy(), "tilt"),
  "upside down": (turned, "tilt"),
}


@pytest.fixture(scope="module")
def networks():
  return {"tracker": detector.Tracker(), "eyes": eyelids.Eyes()}


def follow(frames, networks, path):
  """Tracks a face without fitting a head to it."""
  synthetic.write_video(
    path,
    num_frames=len(frames),
    size=frames[0].shape[1::-1],
    image=lambda index, width, height: frames[index],
    codecs=("ffv1", "flac"),
    pixels="bgr0",
  )
  seen = landmarks.track(frames, fps=25.0, **networks)
  made = synthetic.synthetic_track(len(frames), size=48)
  return tracking.TrackedVideo(
    path=path,
    video=video_reader.probe(path),
    model=None,
    fit=None,
    track=made._replace(present=seen.present, interpolated=seen.interpolated),
    num_faces=1,
    config=masks.Config(),
    sight=seen.sight,
  )


@pytest.mark.parametrize("name", CASES)
def test_each_fault_is_named_and_no_other_face_is(
  close_up, networks, tmp_path, name
):
  change, figure = CASES[name]
  frames = [change(frame) for frame in close_up]
  tracked = follow(frames, networks, tmp_path / "clip.mkv")
  figures = visibility.measure(tracked)
  level, reasons = quality_rules.grade(GOOD | figures)
  named = {reason["figure"] for reason in reasons}
  if figure is None:
    assert level == "good" and figures["learnable"] == 1
    return
  assert level != "good" and figure in named
  if figure in ("hidden", "cut", "text"):
    assert level == "rejected" and figures["learnable"] < 0.5
    (span, *_) = figures[f"{figure}_times"]
    assert span[0] <= 0.1 and span[1] <= NUM / 25
  if name == "upside down":
    (what,) = [r["what"] for r in reasons if r["figure"] == "tilt"]
    assert what == "The head is upside down."


def test_frames_of_a_hidden_mouth_are_not_learnt_from(
  close_up, networks, tmp_path
):
  frames = [hand(frame) for frame in close_up] + close_up[::-1]
  tracked = follow(frames, networks, tmp_path / "clip.mkv")
  usable = visibility.learnable(tracked)
  assert not usable[: NUM - 4].any() and usable[NUM + 4 :].all()
  figures = visibility.measure(tracked)
  assert 0.4 < figures["hidden"] < 0.6
  ((start, end),) = figures["hidden_times"]
  assert start == 0 and abs(end - NUM / 25) <= 0.2
  _, reasons = quality_rules.grade(GOOD | figures)
  (reason,) = [r for r in reasons if r["figure"] == "hidden"]
  assert "(0.0 to 0." in reason["what"]


def test_spans_join_short_gaps():
  times = np.arange(100) / 25
  marked = np.zeros(100, bool)
  marked[10:20] = marked[25:30] = marked[60:61] = True
  assert visibility.spans(marked, times) == [[0.4, 1.16], [2.4, 2.4]]
  assert visibility.spans(np.zeros(100, bool), times) == []


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "level"),
  [("visible", "usable"), ("grey box", "rejected"), ("still", "rejected")],
)
def test_the_whole_check_of_a_video(close_up, tmp_path, name, level):
  change = CASES.get(name, CASES["visible"])[0]
  frames = [change(frame) for frame in close_up]
  frames = frames + frames[::-1]  # 1.6 s.
  if name == "still":
    frames = frames[:1] * len(frames)
  path = tmp_path / "clip.mp4"
  synthetic.write_video(
    path,
    num_frames=len(frames),
    size=(SIDE, SIDE),
    image=lambda index, width, height: frames[index],
    sound=synthetic.speech_like(len(frames) / 25, 16000),
  )
  report, rejected = pipeline.check(path, pipeline.Settings())
  assert f"quality: {level}" in report
  assert rejected == (level == "rejected")
