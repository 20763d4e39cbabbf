"""HDTF's annotation files, and pieces cut out of videos by them."""

from fractions import Fraction

import av
import numpy as np
import pytest

from pir_jax.data import hdtf
from pir_jax.media import video_reader
from pir_jax.types import InputError


def level(index):
  return 20 + 7 * index % 200


def write_counting_video(path, *, num_frames, rate, size=(96, 64), zero=0):
  """Frame n is grey, see `level`; a pulse of sound at every whole second."""
  with av.open(str(path), "w") as container:
    video = container.add_stream("libx264", rate=rate, options={"crf": "1"})
    video.width, video.height = size
    video.pix_fmt = "yuv420p"
    sound = container.add_stream("pcm_s16le", rate=16000)
    sound.layout = "mono"
    for index in range(num_frames):
      image = np.full((size[1], size[0], 3), level(index), np.uint8)
      image[:, : size[0] // 2] = 250  # The left half is white.
      frame = av.VideoFrame.from_ndarray(image, "rgb24")
      frame.pts, frame.time_base = index, 1 / Fraction(rate)
      container.mux(video.encode(frame))
    container.mux(video.encode(None))
    wave = np.zeros(int(num_frames / rate * 16000), np.int16)
    for second in range(0, len(wave), 16000):
      wave[second : second + 160] = 20000
    frame = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
    frame.sample_rate, frame.pts = 16000, 0
    container.mux(sound.encode(frame))
    container.mux(sound.encode(None))
  return path


def write_annotations(folder):
  folder.mkdir()
  (folder / "RD_video_url.txt").write_text("Radio1 https://x/1\nRadio2 y\n")
  (folder / "RD_annotion_time.txt").write_text(
    "Radio1.mp4 00:01-00:02 00:02-00:03 nonsense \nRadio2.mp4 00:00-01:00\n"
  )
  (folder / "RD_resolution.txt").write_text("Radio1.mp4 128\n")
  (folder / "RD_crop_wh.txt").write_text("Radio1_0.mp4 96 96 0 96\n")
  return folder


def test_annotations_name_pieces_missing_videos_and_what_is_wrong(tmp_path):
  videos = tmp_path / "videos"
  videos.mkdir()
  (videos / "Radio1.mkv").touch()
  found = hdtf.read_annotations(write_annotations(tmp_path / "a"), videos)
  assert found.missing == ["RD_Radio2"]
  assert [cut.name for _, cut in found.cuts] == ["RD_Radio1_000"]
  _, cut = found.cuts[0]
  assert (cut.start, cut.end, cut.height) == (1.0, 2.0, 128)
  assert cut.crop == (96, 96, 0, 96)
  assert hdtf.Cut.from_json(cut.to_json()) == cut
  assert len(found.skipped) == 2
  assert "RD_Radio1_001" in found.skipped[0]
  assert "nonsense" in found.skipped[1]


def test_folder_without_annotations_is_refused(tmp_path):
  with pytest.raises(InputError, match="annotion_time"):
    hdtf.read_annotations(tmp_path, tmp_path)
  with pytest.raises(InputError, match="not a folder"):
    hdtf.read_annotations(tmp_path / "no", tmp_path)


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001)])
def test_piece_has_exactly_its_frames_and_its_sound(tmp_path, rate):
  video = write_counting_video(
    tmp_path / "v.mkv", num_frames=round(3.2 * rate), rate=rate
  )
  # Cropped with numbers made for twice the height: the grey right half.
  cut = hdtf.Cut(
    name="RD_v_000", start=1.0, end=2.0, crop=(96, 96, 0, 96), height=128
  )
  piece = tmp_path / "piece.mp4"
  cut.write(video, piece)
  assert sorted(p.name for p in tmp_path.iterdir()) == ["piece.mp4", "v.mkv"]
  frames = list(video_reader.read_frames(piece))
  times = [Fraction(n) / rate for n in range(round(3.2 * rate))]
  wanted = [n for n, time in enumerate(times) if 1 <= time < 2]
  assert len(frames) == len(wanted)
  for (time, image), number in zip(frames, wanted, strict=True):
    assert image.shape == (512, 512, 3)
    # Coded twice: off by one or two grey levels, the next frame's by seven.
    assert abs(image[:, 64:].mean() - level(number)) < 3
    assert abs(time - (times[number] - times[wanted[0]])) < 1e-3
  sound = video_reader.read_audio(piece)
  # The pulse at second 1 is where the first frame is, or 5 ms before it.
  pulse = float(1 - times[wanted[0]])
  loud = np.flatnonzero(np.abs(sound) > 0.3) / 16000
  assert abs(loud.max() - (pulse + 0.01)) < 2e-3
  assert abs(len(sound) / 16000 - len(frames) / rate) < 1 / rate


def test_piece_is_the_same_bytes_every_time(tmp_path):
  video = write_counting_video(tmp_path / "v.mkv", num_frames=30, rate=25)
  cut = hdtf.Cut(name="p", start=0.2, end=0.8, crop=(0, 64, 0, 64))
  cut.write(video, tmp_path / "a.mp4")
  cut.write(video, tmp_path / "b.mp4")
  a, b = (tmp_path / name for name in ("a.mp4", "b.mp4"))
  assert a.read_bytes() == b.read_bytes()


def test_piece_that_the_video_does_not_have(tmp_path):
  video = write_counting_video(tmp_path / "v.mkv", num_frames=30, rate=25)
  for cut, says in (
    (hdtf.Cut(name="late", start=9.0, end=10.0), "no frame between"),
    (
      hdtf.Cut(name="wide", start=0.0, end=1.0, crop=(0, 640, 0, 640)),
      "too small",
    ),
  ):
    with pytest.raises(InputError, match=says):
      cut.write(video, tmp_path / "p.mp4")
  assert [p.name for p in tmp_path.iterdir()] == ["v.mkv"]
