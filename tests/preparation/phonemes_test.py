"""The recognisers, where they are installed, and the words where not."""

import numpy as np
import pytest

from pir_jax import assets
from pir_jax.media import video_reader
from pir_jax.metrics import sync
from pir_jax.preparation import phonemes
from pir_jax.types import SAMPLE_RATE, InputError


def test_without_the_recogniser_the_extra_is_named(monkeypatch):
  monkeypatch.setattr(phonemes, "available", lambda: False)
  with pytest.raises(InputError, match=r"pir_jax\[sync\]"):
    phonemes.recognise(np.zeros(SAMPLE_RATE, np.float32))


def test_long_recordings_are_recognised_in_parts(monkeypatch):
  recognised = []
  monkeypatch.setattr(phonemes, "available", lambda: True)
  monkeypatch.setattr(phonemes, "_words", lambda pcm: [("AA", 0, 10)])
  monkeypatch.setattr(
    phonemes, "_sounds", lambda pcm: recognised.append(len(pcm) // 2) or []
  )
  sound = np.full(10 * 60 * SAMPLE_RATE, 0.1, np.float32)
  phones = phonemes.recognise(sound)
  assert sum(recognised) == phonemes.LONGEST * SAMPLE_RATE
  # From the start to the end, evenly.
  steps = np.diff(phones.middle)
  assert phones.middle[0] == pytest.approx(0.05)
  assert phones.middle[-1] == pytest.approx(600 - phonemes.PART + 0.05)
  assert np.ptp(steps) < 1e-3


def test_silence_has_no_phones(monkeypatch):
  monkeypatch.setattr(phonemes, "available", lambda: True)
  phones = phonemes.recognise(np.zeros(SAMPLE_RATE, np.float32))
  assert phones.names == () and len(phones.middle) == 0


@pytest.mark.slow
def test_a_real_voice():
  """'It was the best of times, it was the worst of times': six closures."""
  pytest.importorskip("pocketsphinx")
  voice = video_reader.read_audio(assets.fetch("demo_audio"))[: 6 * SAMPLE_RATE]
  first = phonemes.recognise(voice)
  closures = np.isin(first.names, sync.CLOSURES)
  # Each of both recognisers detects most of them.
  assert 4 <= closures.sum() <= 16
  assert first.middle.min() >= 0 and first.middle.max() <= 6
  late = phonemes.recognise(np.concatenate([np.zeros(8000, np.float32), voice]))
  later = np.isin(late.names, sync.CLOSURES)
  # Half a second of silence moves them by as much: 30 ms are three frames of
  # the recogniser.
  moved = [
    np.abs(late.middle[later] - time - 0.5).min()
    for time in first.middle[closures]
  ]
  assert np.median(moved) < 0.03
