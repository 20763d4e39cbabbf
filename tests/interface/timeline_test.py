"""The face follows the player's clock, whatever a browser sends."""

import base64
import html
import io
import re

import numpy as np
import pytest
import soundfile

from pir_jax.interface import timeline as timeline_lib

ROWS = np.arange(50, dtype=np.float32)[:, None]  # Two seconds.


@pytest.fixture
def timeline():
  sound = 0.5 * np.sin(np.arange(32000) / 9).astype(np.float32)
  return timeline_lib.Timeline(ROWS, sound)


def test_nothing_is_due_before_the_player_sends_its_clock(timeline):
  assert timeline.at(now=5.0) is None and not timeline.playing


def test_a_playing_clock_runs_on_and_a_paused_one_stands(timeline):
  timeline.receive("playing 0.4", now=100.0)
  assert timeline.at(now=100.0)[0] == 10
  assert timeline.at(now=100.2)[0] == 15
  assert timeline.at(now=100.2, ahead=0.08)[0] == 17
  timeline.receive("paused 0.8", now=101.0)
  assert timeline.at(now=107.0, ahead=0.5)[0] == 20
  assert not timeline.playing


def test_it_ends_with_the_sound_or_when_it_is_left(timeline):
  timeline.receive("playing 1.99", now=0.0)
  assert timeline.at(now=0.9)[0] == 49  # The last stays.
  timeline.receive("ended 2.0", now=1.0)
  assert timeline.at(now=1.0) is None
  timeline.receive("paused 1.0", now=2.0)
  timeline.leave()
  assert timeline.at(now=2.0) is None


def test_a_player_that_is_no_more_stops_the_clock(timeline):
  timeline.receive("playing 0.2", now=0.0)
  timeline.at(now=10.0)
  assert not timeline.playing
  assert timeline.at(now=20.0)[0] == 5


@pytest.mark.parametrize(
  "text", ["", "playing", "playing nan", "playing inf", "jumping 1", "paused x"]
)
def test_what_no_player_sends_changes_nothing(timeline, text):
  timeline.receive("paused 0.4", now=0.0)
  timeline.receive(text, now=0.0)
  assert timeline.at(now=0.0)[0] == 10
  timeline.receive("paused -3", now=0.0)
  assert timeline.at(now=0.0)[0] == 0


def test_the_player_holds_the_sound_itself(timeline):
  text = timeline.player('a "name" <b>.wav')
  assert "<b>" not in text and 'a "name"' not in text
  data = re.search(r"base64,([^\"]+)", text)[1]
  sound, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
  assert rate == 16000
  want = 0.5 * np.sin(np.arange(32000) / 9)
  np.testing.assert_allclose(sound, want, atol=2**-15)
  # Its script looks for the field by the label that the panel uses.
  script = html.unescape(re.search(r'onplay="([^"]+)"', text)[1])
  assert timeline_lib.FIELD in script
