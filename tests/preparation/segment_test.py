"""The part of a long video that is chosen: seen, speaking, lively, sharp."""

import dataclasses
import types

import numpy as np
import pytest

from pir_jax.data import hdtf
from pir_jax.media import video_reader
from pir_jax.preparation import pipeline, segment
from pir_jax.types import SAMPLE_RATE

WHOLE, SECONDS = 60.0, 10.0


def make_samples(lively=(30.0, 40.0)):
  """A minute of a face that moves between two times alone."""
  time = np.arange(0, WHOLE, 1 / segment.RATE)
  moves = np.sin(7 * time) * ((time >= lively[0]) & (time < lively[1]))
  height = np.full(len(time), np.nan)
  height[:: segment._DETAIL_EVERY] = 100.0
  return segment.Samples(
    time, 0.03 + 0.02 * moves, 0.1 * moves, 0.0 * moves, height
  )


def best_of(samples, sound=None):
  sound = np.zeros(0, np.float32) if sound is None else sound
  pieces = segment.compare(samples, sound, WHOLE, SECONDS)
  assert [piece.start for piece in pieces] == list(range(51))
  assert all(piece.end - piece.start == SECONDS for piece in pieces)
  return pieces[int(np.argmax(segment.scores(pieces)))]


def test_the_liveliest_piece_is_chosen():
  best = best_of(make_samples())
  assert best.start == 30.0 and best.seen == best.speech == 1.0
  assert best.height == 100.0 and best.mouth > 0.01 and best.pose > 3
  assert "10 s of 60 s were chosen, from 30 s on" in best.why()


def test_no_piece_without_a_face_or_without_speech_is_chosen():
  samples = make_samples()
  hidden = (samples.time >= 33) & (samples.time < 40)
  gone = samples._replace(opening=np.where(hidden, np.nan, samples.opening))
  assert best_of(gone).seen > 0.9
  random = np.random.default_rng(0)
  sound = random.normal(size=int(WHOLE * SAMPLE_RATE)).astype(np.float32)
  sound[30 * SAMPLE_RATE : 40 * SAMPLE_RATE] *= 1e-4
  chosen = best_of(samples, sound)
  assert chosen.start != 30.0 and chosen.speech < 1


def test_a_sharper_face_is_preferred_where_all_else_is_equal():
  samples = make_samples(lively=(0.0, WHOLE))
  sharp = (samples.time >= 20) & (samples.time < 30)
  samples = samples._replace(height=samples.height * np.where(sharp, 2, 1))
  assert abs(best_of(samples).start - 20) <= 4


def test_a_video_in_which_nobody_is_seen_has_pieces_all_the_same():
  samples = make_samples()
  nobody = samples._replace(opening=np.full(len(samples.time), np.nan))
  assert best_of(nobody).seen == 0.0


def test_a_short_video_is_taken_whole(monkeypatch):
  info = types.SimpleNamespace(duration=10.5, has_audio=False)
  monkeypatch.setattr(video_reader, "probe", lambda path: info)
  assert segment.choose("my video.mp4", 10.0) is None
  info.duration = WHOLE
  monkeypatch.setattr(segment, "look", lambda path: make_samples())
  cut, piece = segment.choose("a/my video.mp4", 10.0)
  assert cut == hdtf.Cut(name="my video_30s", start=30.0, end=40.0)
  assert dataclasses.asdict(piece)["whole"] == WHOLE


@pytest.mark.parametrize("seconds", [0.0, 20.0])
def test_what_was_prepared_before_there_was_a_choice_is_still_today_s(seconds):
  plain = pipeline.Settings().digest()
  chosen = pipeline.Settings(max_seconds=seconds).digest()
  assert (plain == chosen) is (seconds == 0.0)
  settings = pipeline.Settings(max_seconds=seconds)
  assert pipeline.Settings.from_json(settings.to_json()) == settings
