"""The report on a reenacted video; of a long one its first and last minute."""

import json
import types
from fractions import Fraction

import numpy as np
import pytest

from pir_jax.evaluation import screening, video
from pir_jax.types import SAMPLE_RATE


@pytest.fixture
def screened():
  return screening.Screened(
    num_frames=50,
    num_faceless=2,
    outside_window=41.0,
    outside_mask=40.0,
    changed_outside=0.02,
    inside_mask=22.0,
    seam_edge=1.0,
    seam_feather=0.9,
    seam_tone=1.1,
    jitter=0.8,
    flicker=0.7,
    sharpness=0.6,
    blinks=0.95,
    following=0.9,
    lateness=0.02,
    source_opening=(0.5, 3.0, 9.0),
    output_opening=(0.4, 3.0, 8.0),
    num_silent=12,
    silent_opening=0.6,
    silent_rank=0.06,
  )


def test_report_says_how_eyelids_follow_and_whether_texture_flickers(screened):
  text = video.as_text(screened, "a.mp4", "b.mp4")
  assert "flicker inside the mask       0.70" in text
  assert "eyelids follow the source's     0.95" in text


def test_report_says_whether_the_mouth_is_closed(screened):
  assert "closed; 6 %" in video.as_text(screened, "a.mp4", "b.mp4")
  opened = screened._replace(silent_opening=3.0, silent_rank=0.5)
  assert "NOT closed; 50 %" in video.as_text(opened, "a.mp4", "b.mp4")
  nothing = screened._replace(
    num_silent=0, silent_opening=float("nan"), silent_rank=float("nan")
  )
  text = video.as_text(nothing, "a.mp4", "b.mp4")
  assert "no silence" in text and "closed" not in text


def test_json_has_neither_nan_nor_infinity():
  plain = video._plain((1.0, float("inf"), float("nan")))
  assert plain == [1.0, None, None]


def test_lips_that_followed_nothing_have_no_change_in_percent(screened):
  still = screened._replace(following=0.0)
  assert "nan %" in video.drift(still, screened)


def test_report_says_how_lips_follow(screened):
  text = video.as_text(screened, "a.mp4", "b.mp4")
  assert "prediction      0.90 (correlation), 20 ms after" in text
  mute = screened._replace(following=float("nan"), lateness=float("nan"))
  assert "no speech" in video.as_text(mute, "a.mp4", "b.mp4")


@pytest.mark.parametrize("minutes", [1.5, 3.0])
def test_of_a_long_video_two_minutes_are_measured(
  screened, monkeypatch, tmp_path, minutes
):
  """The last one with its own speech; what changed is in the text."""
  sound = np.ones(round(minutes * 60 * SAMPLE_RATE), np.float32)
  sound[-60 * SAMPLE_RATE :] = 2
  info = types.SimpleNamespace(
    width=64,
    height=64,
    rate=Fraction(25),
    duration=Fraction(minutes * 60),
    has_audio=True,
    sha256="a",
    name="source.mp4",
  )
  known = types.SimpleNamespace(
    identity=None, stats=None, look=(), tracking_options=lambda: {}
  )
  person = types.SimpleNamespace(
    people=[known],
    with_identity=lambda *who: person,
    predict_expression=lambda waveform: waveform[:1, None],
  )
  measured = []

  def screen(tracked, path, waveform, way, *, predicted, start, seconds):
    measured.append((len(waveform) / SAMPLE_RATE, predicted[0, 0], start))
    late = screened._replace(sharpness=0.6 - 0.003 * start / 60)
    return late, {"source": np.zeros((1, 8, 8, 3), np.uint8)}

  monkeypatch.setattr(video.video_reader, "probe", lambda path: info)
  monkeypatch.setattr(video.video_reader, "read_audio", lambda path: sound)
  monkeypatch.setattr(video, "load", lambda model: person)
  monkeypatch.setattr(video, "person_in", lambda people, sha256: known)
  tracked = types.SimpleNamespace(video=info)
  monkeypatch.setattr(video.seen, "track", lambda path, **who: tracked)
  monkeypatch.setattr(screening, "screen", screen)
  text = video.report("model", "source.mp4", "out.mp4", tmp_path)
  values = json.loads((tmp_path / "video.json").read_text())
  if minutes < 2:
    assert measured == [(90, 1, 0)] and values["num_frames"] == 50
    return
  assert measured == [(60, 1, 0), (60, 2, 120)]
  assert [*values] == ["first_minute", "last_minute"]
  assert "sharpness inside the mask             0.60    0.59   -1.0 %" in text
