"""Bare samples arrive as floats, whatever pieces they come in."""

import os
import threading

import numpy as np
import pytest

from pir_jax.media import pcm
from pir_jax.types import InputError


def test_samples_split_anywhere_are_whole():
  samples = np.arange(-3000, 3000, dtype="<i2")
  reader, writer = os.pipe()

  def send():
    data = samples.tobytes()
    for start in range(0, len(data), 777):
      os.write(writer, data[start : start + 777])
    os.close(writer)

  thread = threading.Thread(target=send)
  thread.start()
  chunks = list(pcm.read(reader))
  thread.join()
  os.close(reader)
  np.testing.assert_allclose(np.concatenate(chunks) * 32768, samples)


def test_a_last_odd_byte_is_left_out():
  reader, writer = os.pipe()
  os.write(writer, b"\x00\x40\x07")
  os.close(writer)
  np.testing.assert_allclose(np.concatenate(list(pcm.read(reader))), [0.5])
  os.close(reader)


@pytest.mark.parametrize("size", [1, 100, 4800])
def test_resampling_in_pieces_equals_the_whole(size):
  times = np.arange(48_000) / 48_000
  wave = np.sin(2 * np.pi * 440 * times).astype(np.float32)
  whole, pieces = pcm.Resampler(48_000, 16_000), pcm.Resampler(48_000, 16_000)
  expected = np.concatenate([whole.push(wave), whole.finish()])
  parts = [pieces.push(wave[i : i + size]) for i in range(0, 4800, size)]
  parts += [pieces.push(wave[4800:]), pieces.finish()]
  np.testing.assert_allclose(np.concatenate(parts), expected, atol=1e-5)
  assert len(expected) == pytest.approx(16_000, abs=2)


def test_the_same_rate_changes_nothing():
  wave = np.float32([0.1, -0.2])
  same = pcm.Resampler(16_000, 16_000)
  np.testing.assert_array_equal(same.push(wave), wave)
  assert len(same.finish()) == 0


@pytest.mark.parametrize(
  ("chunk", "expected"),
  [
    (np.int16([16384]), 0.5),
    (np.int32([2**30]), 0.5),
    (np.float64([0.5]), 0.5),
    (np.float32([[0.25, 0.75]]), 0.5),
  ],
)
def test_samples_of_any_kind_are_mono_floats(chunk, expected):
  made = pcm.as_mono(chunk)
  assert made.dtype == np.float32
  np.testing.assert_allclose(made, [expected])


@pytest.mark.parametrize("rate", [0, -1, 7999, 10**6])
def test_no_rate_is_refused(rate):
  with pytest.raises(InputError, match=f"sample_rate={rate} must lie in"):
    pcm.check_rate(rate)
