"""Predicted expressions of a speech file, at the clock of a browser's player.

viser has no sound, so an HTML element plays it, with the browser's own buttons.
Its clock is what the face follows: a script writes it into a text field of
viser's, which sends every change to the server, at most 20 a second.

n audio samples, t ticks of FRAME_RATE, e expression coefficients.
"""

import base64
import html
import io
import math
import time

import numpy as np
import soundfile
from jaxtyping import Float

from pir_jax.types import FRAME_RATE, SAMPLE_RATE

FIELD = "Player clock"  # Label of the text field.
LONGEST = 300.0  # Seconds of speech: all of it travels to each browser.
# Seconds that a playing clock is carried on without news of it.
_SILENCE = 1.0
# Of an audio element `a`. The field is viser's own, known by its label, and
# hidden; React sees a change only where its own setter is passed by.
_SCRIPT = """
const a = this;
if (!a.send) {
  const label = [...document.querySelectorAll('label')].find(
    (x) => x.textContent === '%s');
  let row = label;
  while (row && !row.querySelector('input')) row = row.parentElement;
  if (!row) return;
  row.style.display = 'none';
  const field = row.querySelector('input');
  const set = Object.getOwnPropertyDescriptor(
    HTMLInputElement.prototype, 'value').set;
  a.send = () => {
    const state = a.ended ? 'ended' : a.paused ? 'paused' : 'playing';
    set.call(field, state + ' ' + a.currentTime.toFixed(3));
    field.dispatchEvent(new Event('input', {bubbles: true}));
  };
  setInterval(() => { if (!a.paused) a.send(); }, 40);
}
if (event.type !== 'loadedmetadata') a.send();
"""
_EVENTS = ("loadedmetadata", "play", "playing", "pause", "seeked", "ended")


class Timeline:
  """Expressions of speech, and where in it the player of a browser is.

  Attributes:
    expression: raw coefficients of each tick.
    playing: whether the clock runs.
  """

  def __init__(
    self,
    expression: Float[np.ndarray, "t e"],
    waveform: Float[np.ndarray, "n"],
  ):
    self.expression = np.float32(expression)
    self._waveform = waveform
    self._stop()

  def _stop(self) -> None:
    self._seconds, self._noted_at, self.playing = None, 0.0, False

  def receive(self, text: str, now: float | None = None) -> None:
    """Takes what the player sends; what it cannot have sent is ignored.

    Args:
      text: "playing", "paused" or "ended", and seconds of the sound.
      now: of `time.monotonic`.
    """
    state, _, number = text.partition(" ")
    try:
      seconds = float(number)
    except ValueError:
      return
    if state not in ("playing", "paused", "ended") or not math.isfinite(
      seconds
    ):
      return
    if state == "ended":
      self._stop()
      return
    self._seconds = max(0.0, seconds)
    self._noted_at = time.monotonic() if now is None else now
    self.playing = state == "playing"

  def leave(self) -> None:
    """Forgets the clock: no expression is shown until the player sends one."""
    self._stop()

  def at(
    self, now: float | None = None, ahead: float = 0.0
  ) -> Float[np.ndarray, "e"] | None:
    """The expression that is due; None before the first and after the last.

    Args:
      now: of `time.monotonic`.
      ahead: seconds until it will be seen.
    """
    if self._seconds is None:
      return None
    seconds = self._seconds
    if self.playing:
      now = time.monotonic() if now is None else now
      since = now - self._noted_at
      if since > _SILENCE:  # The browser was closed, or sleeps.
        self.playing = False
      seconds += min(since, _SILENCE) + ahead
    tick = min(int(seconds * FRAME_RATE), len(self.expression) - 1)
    return self.expression[tick]

  def player(self, name: str) -> str:
    """The HTML of the player, sound included.

    Args:
      name: of the file, for its title.
    """
    sound = io.BytesIO()
    # Lossless and without a coder's delay; half the size of samples.
    soundfile.write(sound, self._waveform, SAMPLE_RATE, format="FLAC")
    data = base64.b64encode(sound.getvalue()).decode()
    script = html.escape(" ".join((_SCRIPT % FIELD).split()), quote=True)
    events = " ".join(f'on{event}="{script}"' for event in _EVENTS)
    return (
      '<div style="padding:0 0.75em 0.5em">'
      f'<audio id="pir-speech" controls title="{html.escape(name)}" '
      f'style="width:100%;height:2.4em" {events} '
      f'src="data:audio/flac;base64,{data}"></audio></div>'
    )
