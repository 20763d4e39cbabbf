"""Figures of a made-up clip whose values are known, and its strip."""

import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pir_jax.data import synthetic
from pir_jax.face import masks, sight
from pir_jax.media import video_reader
from pir_jax.metrics import lips, sync
from pir_jax.preparation import motion, phonemes, quality, thumbnails, tracking
from pir_jax.types import SAMPLE_RATE

NUM = 60
SIZE = (64, 48)


def mesh() -> np.ndarray:
  """468 points of a round face in the middle, its lips a little apart."""
  angle = np.linspace(0, 2 * np.pi, 468, endpoint=False)
  points = 0.5 + 0.2 * np.stack([np.sin(angle), np.cos(angle)], -1)
  turn = np.linspace(0, 2 * np.pi, len(sight.OVAL), endpoint=False)
  oval = 0.5 + 0.3 * np.stack([np.sin(turn), -np.cos(turn)], -1)
  points[list(sight.OVAL)] = oval
  points[lips.FOREHEAD], points[lips.CHIN] = (0.5, 0.2), (0.5, 0.8)
  for upper, lower in lips.INNER_LIPS:
    points[upper], points[lower] = (0.5, 0.62), (0.5, 0.65)
  for upper, lower, outer, inner in ((159, 145, 33, 133), (386, 374, 263, 362)):
    points[upper], points[lower] = (0.5, 0.4), (0.5, 0.43)
    points[outer], points[inner] = (0.45, 0.415), (0.55, 0.415)
  return points.astype(np.float32)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
  path = tmp_path_factory.mktemp("media") / "clip.mp4"
  sound = synthetic.speech_like(NUM / 25, SAMPLE_RATE)
  synthetic.write_video(path, num_frames=NUM, size=SIZE, sound=sound)
  return path


@pytest.fixture
def tracked(video, monkeypatch):
  made = synthetic.synthetic_track(NUM, size=48)
  away = np.zeros(NUM, bool)
  away[20:35] = True  # 0.6 s.
  guessed = np.zeros(NUM, bool)
  guessed[20:23] = True
  hidden = away & ~guessed
  nothing = np.where(away, np.nan, 1.0).astype(np.float32)
  error = 0.3 * nothing
  error[40] = 3.0
  values = dict(
    window=np.tile([32.0, 24.0, 48.0], (NUM, 1)).astype(np.float32),
    landmarks=np.tile(mesh(), (NUM, 1, 1)),
    present=~hidden,
    interpolated=guessed,
    error=error,
    face_height=28.8 * nothing,
  )
  values["landmarks"][hidden] = np.nan
  if "shot" in made._fields:
    values["shot"] = (np.arange(NUM) >= 25).astype(np.int64)
  monkeypatch.setattr(
    tracking.TrackedVideo,
    "face_masks",
    lambda self, frames, side: np.tile(
      np.pad(np.ones((side // 2,) * 2, bool), side // 4), (len(frames), 1, 1)
    ),
  )
  monkeypatch.setattr(phonemes, "available", lambda: False)
  return tracking.TrackedVideo(
    path=video,
    video=video_reader.probe(video),
    model=None,
    fit=None,
    track=made._replace(**values),
    num_faces=2,
    config=masks.Config(),
  )


def test_figures_are_the_clips(tracked):
  sound = video_reader.read_audio(tracked.path)
  made = quality.measure(tracked, sound)
  assert made.seconds == pytest.approx(NUM / 25, abs=0.01)
  assert (made.width, made.height) == SIZE
  assert made.measured == pytest.approx(45 / 60)
  assert made.interpolated == pytest.approx(3 / 60)
  assert made.absent == pytest.approx(12 / 60)
  assert made.longest_gap == pytest.approx(0.6)
  assert made.num_people == 2
  assert made.face_height == pytest.approx(28.8, abs=0.06)
  # 44 frames of 0.3 px and one of 3 px.
  rms = np.sqrt((44 * 0.3**2 + 3.0**2) / 45) / 28.8
  assert made.fit_error == pytest.approx(rms, rel=1e-3)
  assert made.worst_time == pytest.approx(1.6)
  assert made.effective_height == pytest.approx(28.8 / made.detail, rel=0.01)
  # The head of the synthetic track sways by 0.15 and 0.1 radians.
  assert -8.6 <= made.yaw[0] < made.yaw[1] <= 8.6
  assert made.yaw[1] - made.yaw[0] > 8
  assert made.blinks is None  # A face of 29 px.
  assert made.level == "rejected"
  assert {r["figure"] for r in made.reasons} >= {"face_height", "measured"}
  assert "sync" in made.shift_unknown


def test_it_is_plain_json(tracked):
  made = quality.measure(tracked, video_reader.read_audio(tracked.path))
  values = dataclasses.asdict(made)
  text = json.dumps(values, allow_nan=False)
  assert json.loads(text) == values
  lengths = {len(curve) for curve in values["curves"].values()}
  assert lengths == {NUM}
  # What is not known is a gap, and not a zero.
  assert values["curves"]["fit_error"][21] is None
  assert values["curves"]["yaw"][21] is not None
  assert values["curves"]["yaw"][30] is None


def test_it_is_the_same_twice(tracked):
  sound = video_reader.read_audio(tracked.path)
  assert quality.measure(tracked, sound) == quality.measure(tracked, sound)
  assert thumbnails.make(tracked) == thumbnails.make(tracked)


def test_a_silent_video(tracked):
  made = quality.measure(tracked, np.zeros(0, np.float32))
  assert made.sound_seconds == 0 and made.loudness is None
  assert "no sound" in made.shift_unknown
  assert set(made.curves["loudness"]) == {None}
  assert "Sound: none" in quality.report(made)


def test_the_shift_comes_from_phones_and_lips(tracked, monkeypatch):
  """The estimate is passed on with its sign."""
  monkeypatch.setattr(phonemes, "available", lambda: True)
  phones = phonemes.Phones(("AA",) * 3, np.array([0.1, 0.2, 0.3]))
  monkeypatch.setattr(phonemes, "recognise", lambda sound: phones)
  asked = []

  def estimate(times, opening, names, middle):
    asked.append((opening, names))
    return sync.Shift(0.25, 0.02, "", 99, 7)

  monkeypatch.setattr(sync, "estimate", estimate)
  made = quality.measure(tracked, video_reader.read_audio(tracked.path))
  ((opening, names),) = asked
  assert names == phones.names
  # The gap of the made-up lips, as a share of face height.
  assert opening[0] == pytest.approx(0.03 / 0.6, rel=1e-3)
  assert np.isnan(opening[30]) and np.isfinite(opening[21])
  assert (made.shift, made.shift_error, made.num_phones) == (0.25, 0.02, 99)
  assert "shift" in {reason["figure"] for reason in made.reasons}
  assert "250 ms after the lips" in quality.report(made)


@pytest.mark.parametrize("name", ["yaw", "pitch", "roll"])
@pytest.mark.parametrize("degrees", [-40.0, 0.0, 15.0, 60.0])
def test_angles_of_a_turned_head(name, degrees):
  """Axes of the head in the camera's (x right, y down, z away) frame."""
  angle = np.radians(degrees)
  c, s = np.cos(angle), np.sin(angle)
  left, up, ahead = np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]])
  if name == "yaw":  # To the person's left: the picture's right.
    left, ahead = c * left - s * ahead, c * ahead + s * left
  elif name == "pitch":
    up, ahead = c * up - s * ahead, c * ahead + s * up
  else:  # The top of the head towards the person's left.
    left, up = c * left - s * up, c * up + s * left
  pose = np.eye(4)[None].astype(np.float32)
  pose[0, :3, :3] = [left, up, ahead]
  found = dict(
    zip(
      ("yaw", "pitch", "roll"),
      np.degrees(motion.angles(pose)[0]),
      strict=True,
    )
  )
  assert found.pop(name) == pytest.approx(degrees, abs=1e-3)
  assert list(found.values()) == pytest.approx([0, 0], abs=1e-3)


def test_dips_are_counted_once():
  values = np.ones(100)
  values[20:24] = (0.8, 0.6, 0.6, 0.8)  # A blink with a flat bottom.
  values[50] = 0.7
  values[62:] = 0.6  # A look down, which does not come back.
  values[80] = 0.55
  assert motion.count_dips(values, 10, 0.15) == 2
  values[48:53] = np.nan
  assert motion.count_dips(values, 10, 0.15) == 1
  assert motion.count_dips(np.full(9, np.nan), 10, 0.15) == 0


def test_the_strip_shows_the_worst_frame(tracked, monkeypatch):
  indices, labels = [], []
  plain, text = thumbnails._thumbnail, ImageDraw.ImageDraw.text
  monkeypatch.setattr(
    thumbnails, "_thumbnail", lambda *a: indices.append(a[1]) or plain(*a)
  )
  monkeypatch.setattr(
    ImageDraw.ImageDraw,
    "text",
    lambda ink, at, label, **k: (
      labels.append(label) or text(ink, at, label, **k)
    ),
  )
  sheet = Image.open(io.BytesIO(thumbnails.make(tracked)))
  assert sheet.format == "JPEG"
  assert sheet.width > thumbnails.NUM_FRAMES * thumbnails.SIDE
  assert len(indices) == thumbnails.NUM_FRAMES and indices == sorted(indices)
  assert indices[0] == 0 and indices[-1] == NUM - 1
  # Only measured frames.
  assert not set(indices) & set(range(20, 35))
  (worst,) = [place for place, label in enumerate(labels) if "worst" in label]
  assert indices[worst] == 40 and "worst fit, 10.4 %" in labels[worst]


def test_frames_are_the_right_ones(tracked, monkeypatch):
  """However far apart: by reading on, or by jumping."""
  chosen = [3, 4, 17, 59]
  for jump in (0.2, 100.0):
    monkeypatch.setattr(tracking, "_JUMP", jump)
    pictures = list(tracked.pictures(chosen))
    assert [index for index, _ in pictures] == chosen
    for index, image in pictures:
      assert synthetic.frame_code(image) == index % 8
