"""A copy that browsers play shows the same frames."""

import av
import numpy as np
import pytest

from pir_jax.data import synthetic
from pir_jax.interface import source_copy
from pir_jax.media import video_reader


def test_the_copy_is_h264_with_the_same_frames_and_sound(tmp_path):
  source, copy = tmp_path / "a.mkv", tmp_path / "b.mp4"
  sound = synthetic.speech_like(1.0, 16000)
  synthetic.write_video(
    source, num_frames=25, sound=sound, codecs=("mpeg4", "pcm_s16le")
  )
  assert source_copy.main(str(source), str(copy)) == 0
  with av.open(str(copy)) as container:
    names = [stream.codec_context.name for stream in container.streams]
    assert names == ["h264", "aac"]
    assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
  shown, copied = (
    np.stack([frame for _, frame in video_reader.read_frames(path)])
    for path in (source, copy)
  )
  assert shown.shape == copied.shape == (25, 48, 64, 3)
  # Less than neighbours differ by.
  error = np.abs(shown.astype(float) - copied).mean((1, 2, 3))
  assert error.max() < 4
  moved = np.abs(np.diff(shown.astype(float), axis=0)).mean((1, 2, 3))
  assert moved.mean() > 4


def test_a_large_video_shrinks(tmp_path):
  source, copy = tmp_path / "a.mp4", tmp_path / "b.mp4"
  grey = np.full((1080, 608, 3), 90, np.uint8)
  synthetic.write_video(
    source, num_frames=2, size=(608, 1080), image=lambda *_: grey
  )
  source_copy.copy(source, copy)
  info = video_reader.probe(copy)
  assert info.height == 720
  assert info.width / info.height == pytest.approx(608 / 1080, abs=3e-3)


def test_a_damaged_video_is_a_sentence(tmp_path, capsys):
  bad = tmp_path / "a.mp4"
  bad.write_bytes(b"\0\0\0\x20ftypisom" + b"\0" * 99)
  assert source_copy.main(str(bad), str(tmp_path / "b.mp4")) == 1
  assert capsys.readouterr().err.startswith("source_copy: ")
  assert not (tmp_path / "b.mp4").exists()
