"""What cannot be read is refused in one sentence; what can be is not."""

from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from pir_jax.data import synthetic
from pir_jax.media import video_reader
from pir_jax.types import InputError


def _tone(seconds, rate=48000):
  time = np.arange(round(seconds * rate)) / rate
  return (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)


def _whole(path, **options):
  synthetic.write_video(
    path, num_frames=100, sound=_tone(4.0), sound_rate=48000, **options
  )
  return path


def _copy(source, target, title=None, **options):
  """The packets of a file in another container, or with another option."""
  with av.open(str(source)) as old, av.open(str(target), "w", **options) as new:
    new.metadata.update(title or {})
    streams = {s.index: new.add_stream_from_template(s) for s in old.streams}
    for packet in old.demux():
      if packet.dts is not None:
        packet.stream = streams[packet.stream.index]
        new.mux(packet)


def _all(path):
  video_reader.probe(path)
  return len(list(video_reader.read_frames(path))), len(
    video_reader.read_audio(path)
  )


def test_copy_protection_is_named(tmp_path):
  path = tmp_path / "film.mp4"
  keys = {"encryption_key": "76" * 16, "encryption_kid": "a7" * 16}
  _copy(
    _whole(tmp_path / "a.mp4"),
    path,
    options={"encryption_scheme": "cenc-aes-ctr", **keys},
  )
  with pytest.raises(InputError, match="encrypted .*: give a file without"):
    list(video_reader.read_frames(path))
  with pytest.raises(InputError, match="encrypted"):
    video_reader.read_audio(path)


def test_a_picture_of_an_unknown_kind_is_named(tmp_path):
  path = _whole(tmp_path / "a.mp4")
  data = path.read_bytes()
  path.write_bytes(data.replace(b"avc1", b"xyz1"))
  with pytest.raises(InputError, match="video of a kind that cannot be"):
    video_reader.probe(path)


@pytest.mark.parametrize("name", ["a.mkv", "a.webm", "a.avi"])
def test_a_file_that_ends_early_is_refused(tmp_path, name):
  codecs = ("mpeg4", "pcm_s16le") if name == "a.avi" else None
  path = _whole(tmp_path / name, codecs=codecs)
  data = path.read_bytes()
  path.write_bytes(data[: len(data) // 2])
  with pytest.raises(InputError, match="cut short: it declares 4.0 s"):
    list(video_reader.read_frames(path))


def test_a_broadcast_may_begin_and_end_anywhere(tmp_path):
  path = tmp_path / "a.ts"
  options = synthetic.OPTIONS["libx264"] | {"g": "10"}
  data = _whole(path, options=options).read_bytes()
  assert len(data) % 188 == 0
  for start in range(0, len(data) // 2, 188 * 41):
    path.write_bytes(data[start : start + len(data) // 2])
    frames, samples = _all(path)
    assert frames > 25
    assert samples > 16000


def test_what_is_broken_in_the_middle_is_refused(tmp_path):
  path = _whole(tmp_path / "a.mp4")
  with av.open(str(path)) as container:
    packets = [p for p in container.demux(video=0) if p.size]
    middle = packets[50]
    place, size = middle.pos, middle.size
  data = bytearray(path.read_bytes())
  data[place : place + size] = b"\xff" * size
  path.write_bytes(data)
  with pytest.raises(InputError, match="damaged after .* video frames"):
    list(video_reader.read_frames(path))


def test_a_play_list_fetches_nothing_and_a_text_is_no_video(tmp_path):
  path = tmp_path / "a.m3u8"
  path.write_text("#EXTM3U\n#EXTINF:2,\nhttp://127.0.0.1:9/a.ts\n")
  with pytest.raises(InputError, match="cannot be read"):
    video_reader.probe(path)
  path = tmp_path / "a.txt"
  path.write_text("What was said.\n" * 100)
  with pytest.raises(InputError, match="is a text: name a video"):
    video_reader.probe(path)


def test_frames_without_times_are_refused(tmp_path):
  path = tmp_path / "a.h264"
  synthetic.write_video(tmp_path / "a.mp4", num_frames=10)
  _copy(tmp_path / "a.mp4", path)
  with pytest.raises(InputError, match="without a time: convert it to mp4"):
    list(video_reader.read_frames(path))


def test_recordings_glued_together_are_refused(tmp_path):
  path = tmp_path / "both.ts"
  path.write_bytes(2 * _whole(tmp_path / "a.ts").read_bytes())
  with pytest.raises(InputError, match="jumps from .* convert it to mp4"):
    list(video_reader.read_frames(path))
  with pytest.raises(InputError, match="jumps from"):
    video_reader.read_audio(path)


def test_a_hole_of_days_is_a_broken_clock(tmp_path):
  path = tmp_path / "a.mkv"
  times = [Fraction(0), Fraction(1, 25), Fraction(10**6)]
  synthetic.write_video(path, num_frames=3, times=times)
  with pytest.raises(InputError, match="times are broken"):
    video_reader.probe(path)
  with pytest.raises(InputError, match="a clock that jumps"):
    list(video_reader.read_frames(path))


def test_titles_in_old_letters_do_no_harm(tmp_path):
  path = tmp_path / "a.mkv"
  title = {"title": "Gru+++ aus K+ln"}
  _copy(_whole(tmp_path / "b.mkv"), path, title=title)
  data = path.read_bytes()
  assert b"K+ln" in data
  path.write_bytes(data.replace(b"+", b"\xf6"))  # Latin-1
  assert _all(path)[0] == 100


def test_the_cover_of_a_song_is_no_picture(tmp_path):
  song = tmp_path / "song.flac"
  soundfile.write(song, _tone(0.5), 48000)
  path = tmp_path / "song.mp4"
  with av.open(str(song)) as old, av.open(str(path), "w") as new:
    cover = new.add_stream("mjpeg", rate=1)
    cover.width, cover.height, cover.pix_fmt = 16, 16, "yuvj420p"
    cover.disposition = av.stream.Disposition.attached_pic
    sound = new.add_stream_from_template(old.streams.audio[0])
    frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), "rgb24")
    frame.pts = 0
    new.mux(cover.encode(frame.reformat(format="yuvj420p")))
    new.mux(cover.encode(None))
    for packet in old.demux():
      if packet.dts is not None:
        packet.stream = sound
        new.mux(packet)
  with pytest.raises(InputError, match="no picture"):
    video_reader.probe(path)
  assert len(video_reader.read_audio(path)) == 8000
