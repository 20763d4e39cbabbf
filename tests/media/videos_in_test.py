"""A folder's videos are those that FFmpeg opens, whatever they are called."""

import numpy as np
import pytest
import soundfile
from PIL import Image

from pir_jax.data import synthetic
from pir_jax.media import containers
from pir_jax.preparation import batch
from pir_jax.types import InputError

SUFFIXES = (".mp4",)


@pytest.mark.parametrize(
  "name, codecs",
  [
    ("a.mpg", ("mpeg2video", "mp2")),
    ("a.wmv", ("wmv2", "wmav2")),
    ("a.flv", ("flv", "aac")),
    ("a.3gp", ("mpeg4", "aac")),
    ("a.ogv", ("libtheora", "libvorbis")),
    ("a.mts", ("libx264", "aac")),
    ("no ending", ("libx264", "aac")),
  ],
)
def test_every_kind_of_video_is_taken(tmp_path, name, codecs):
  made = tmp_path / ("made.mp4" if name == "no ending" else name)
  try:
    synthetic.write_video(made, num_frames=5, codecs=codecs)
  except (ValueError, OSError) as error:
    pytest.skip(f"this FFmpeg does not write it: {error}")
  made.rename(tmp_path / name)
  assert containers.videos_in(tmp_path, SUFFIXES)[0] == [tmp_path / name]


def test_what_is_no_video_is_named_and_a_damaged_one_is_kept(tmp_path, capsys):
  synthetic.write_video(tmp_path / "it's me.mp4", num_frames=5)
  (tmp_path / "damaged.mp4").write_bytes(b"nothing")
  (tmp_path / "notes.txt").write_text("hello")
  (tmp_path / ".hidden").write_text("hello")
  Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "face.jpg")
  soundfile.write(tmp_path / "voice.wav", np.zeros(1600), 16000)
  videos = batch.list_videos([str(tmp_path)])
  assert [v.video.name for v in videos] == ["damaged.mp4", "it's me.mp4"]
  said = capsys.readouterr().out
  assert "no videos, 3 passed over: face.jpg, notes.txt, voice.wav" in said


def test_an_animated_webp_is_named_as_what_it_is(tmp_path):
  pictures = [
    Image.fromarray(synthetic.moving_disc(i, 64, 48)) for i in range(4)
  ]
  moving, still = tmp_path / "moving.webp", tmp_path / "still.webp"
  pictures[0].save(moving, save_all=True, append_images=pictures[1:])
  pictures[0].save(still)
  videos, others = containers.videos_in(tmp_path, SUFFIXES)
  assert videos == [moving] and others == [still]
  with pytest.raises(InputError, match="animated WebP.*convert it to mp4"):
    containers.open_media(moving)


def test_a_damaged_camera_file_is_a_fault_to_report(tmp_path):
  for name in ("a.MTS", "b.wmv", "c.mpg", "d.M2TS"):
    (tmp_path / name).write_bytes(b"nothing")
  videos = batch.list_videos([str(tmp_path)])
  assert [v.video.name for v in videos] == ["a.MTS", "b.wmv", "c.mpg", "d.M2TS"]
