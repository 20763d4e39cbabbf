"""What goes into a pipe can be read while it is written."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from pir_jax.media import live_writer
from pir_jax.types import InputError

SIZE, RATE = (64, 48), Fraction(25)


class Pipe(io.RawIOBase):
  """Cannot seek; keeps what was written."""

  def __init__(self):
    self.data = bytearray()

  def writable(self):
    return True

  def seekable(self):
    return False

  def write(self, data):
    self.data += bytes(data)
    return len(data)


def _frame(number):
  return np.full((48, 64, 3), (number * 5) % 256, np.uint8)


def _sound(number):
  at = (np.arange(640) + 640 * number) / 16_000
  return (0.5 * np.sin(2 * np.pi * 300 * at)).astype(np.float32)


def _write(pipe, count, kind="mp4"):
  with live_writer.LiveWriter(
    pipe, SIZE, RATE, sample_rate=16_000, kind=kind, comment="made"
  ) as sink:
    for i in range(count):
      sink.write(_frame(i), _sound(i))
      yield i


def test_the_mp4_has_every_frame_its_sound_and_the_mark():
  pipe = Pipe()
  assert len(list(_write(pipe, 60))) == 60
  with av.open(io.BytesIO(bytes(pipe.data))) as container:
    assert container.metadata["comment"] == "made"
    shown = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
  assert len(shown) == 60
  for i, image in enumerate(shown):
    assert abs(float(image.mean()) - _frame(i).mean()) < 3
  with av.open(io.BytesIO(bytes(pipe.data))) as container:
    heard = np.concatenate(
      [f.to_ndarray()[0] for f in container.decode(audio=0)]
    )
  assert len(heard) == pytest.approx(60 * 640, abs=2100)
  assert np.abs(heard).max() == pytest.approx(0.5, abs=0.1)


def test_it_is_readable_before_it_ends():
  pipe = Pipe()
  for i in _write(pipe, 60):
    if i == 40:
      with av.open(io.BytesIO(bytes(pipe.data))) as container:
        so_far = sum(1 for _ in container.decode(video=0))
      # Sound waits for its encoder, and a fragment for its end.
      assert so_far > 28


def test_raw_frames_are_their_bytes():
  pipe = Pipe()
  list(_write(pipe, 3, "raw"))
  frames = np.frombuffer(bytes(pipe.data), np.uint8).reshape(3, 48, 64, 3)
  np.testing.assert_array_equal(frames, np.stack([_frame(i) for i in range(3)]))


@pytest.mark.parametrize("most", [0, 1000, 5000])
def test_a_reader_that_is_gone_is_an_error(most):
  class Gone(Pipe):
    def write(self, data):
      if len(self.data) > most:
        raise BrokenPipeError(32, "Broken pipe")
      return super().write(data)

  with pytest.raises(BrokenPipeError):
    list(_write(Gone(), 100))


def test_another_format_is_refused():
  with pytest.raises(InputError, match="format=avi must be one of mp4, raw"):
    live_writer.LiveWriter(Pipe(), SIZE, RATE, sample_rate=16_000, kind="avi")
