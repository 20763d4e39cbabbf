"""Uploads are taken for what they are, from where they are, once."""

import os
import time

import numpy as np
import pytest
import soundfile

from pir_jax.data import synthetic
from pir_jax.interface import uploads
from pir_jax.types import InputError

MP4 = b"\0\0\0\x20ftypisom" + b"\0" * 100


@pytest.fixture
def inbox(tmp_path):
  (tmp_path / "person").mkdir()
  return uploads.Uploads(tmp_path / "uploads", most_bytes=1000)


def sent(inbox, content, name="x.mp4", place="abc"):
  """Puts a file where a browser's files arrive."""
  folder = inbox.folder / place
  folder.mkdir(exist_ok=True)
  (folder / name).write_bytes(content)
  return {"path": str(folder / name), "orig_name": name}


def test_an_upload_moves_and_gets_the_suffix_of_its_bytes(inbox, tmp_path):
  upload = sent(inbox, MP4, "movie.wav")
  made = inbox.take(upload, "video", tmp_path / "person" / "clip")
  assert made == tmp_path / "person" / "clip.mp4"
  assert made.read_bytes() == MP4
  assert not list(inbox.folder.iterdir())


@pytest.mark.parametrize(
  ("content", "sentence"),
  [
    (b"MZ\x90 a program", "is not a video"),
    (b"#EXTM3U\nfile:///etc/passwd", "is not a video"),
    (b"ffconcat version 1.0\nfile /etc/passwd", "is not a video"),
    (b"<script>alert(1)</script>", "is not a video"),
    (b"", "is not a video"),
    (MP4 + b"\0" * 1000, "larger than"),
  ],
)
def test_what_cannot_be_used_is_refused_and_gone(
  inbox, tmp_path, content, sentence
):
  upload = sent(inbox, content)
  with pytest.raises(InputError, match=sentence):
    inbox.take(upload, "video", tmp_path / "person" / "clip")
  assert not list(inbox.folder.iterdir())
  assert not list((tmp_path / "person").iterdir())


@pytest.mark.parametrize(
  "path",
  [
    "/etc/passwd",
    "{inbox}/../secret.mp4",
    "{inbox}/abc/../../secret.mp4",
    "{inbox}/secret.mp4",
    "{inbox}/abc/deep/x.mp4",
    "{inbox}",
    "",
    "a\0b",
  ],
)
def test_a_path_of_somebody_else_is_refused_and_stays(inbox, tmp_path, path):
  secret = tmp_path / "secret.mp4"
  secret.write_bytes(MP4)
  upload = {"path": path.replace("{inbox}", str(inbox.folder))}
  with pytest.raises(InputError):
    inbox.take(upload, "video", tmp_path / "person" / "clip")
  assert secret.exists()
  assert not list((tmp_path / "person").iterdir())


def test_a_link_is_not_followed(inbox, tmp_path):
  secret = tmp_path / "secret.mp4"
  secret.write_bytes(MP4)
  (inbox.folder / "abc").mkdir()
  os.symlink(secret, inbox.folder / "abc" / "x.mp4")
  upload = {"path": str(inbox.folder / "abc" / "x.mp4")}
  with pytest.raises(InputError, match="no longer"):
    inbox.take(upload, "video", tmp_path / "person" / "clip")
  assert secret.exists()


@pytest.mark.parametrize("upload", [None, "x.mp4", 7, [], {}, {"path": 3}])
def test_what_is_no_upload_at_all_is_a_sentence(inbox, tmp_path, upload):
  with pytest.raises(InputError, match="choose or record"):
    inbox.take(upload, "video", tmp_path / "person" / "clip")


def test_two_browsers_that_send_the_same_file_both_get_it(inbox, tmp_path):
  upload = sent(inbox, MP4)
  one = inbox.take(upload, "video", tmp_path / "person" / "one")
  two = inbox.take(upload, "video", tmp_path / "person" / "two")
  assert one.read_bytes() == two.read_bytes() == MP4
  one.unlink(), two.unlink()
  with pytest.raises(InputError, match="no longer"):
    inbox.take(upload, "video", tmp_path / "person" / "three")


def test_kinds_of_real_files(tmp_path):
  for suffix, kind in ((".mp4", ".mp4"), (".webm", ".mkv"), (".ts", ".ts")):
    path = tmp_path / f"video{suffix}"
    synthetic.write_video(path, num_frames=3)
    assert uploads.suffix_of(path.read_bytes()[:400], "video") == kind
  waveform = np.zeros(1600, np.float32)
  for suffix in (".wav", ".flac", ".ogg", ".mp3", ".aiff"):
    path = tmp_path / f"speech{suffix}"
    soundfile.write(path, waveform, 16000)
    head = path.read_bytes()[:400]
    assert uploads.suffix_of(head, "speech") == suffix
    assert uploads.suffix_of(head, "video") is None


def test_what_nobody_takes_is_removed_when_it_is_old(inbox):
  old = sent(inbox, MP4, place="old")["path"]
  new = sent(inbox, MP4, place="new")["path"]
  os.utime(old, times=(time.time() - 2 * uploads.OLD,) * 2)
  inbox.sweep()
  assert not os.path.exists(old) and os.path.exists(new)
  uploads.Uploads(inbox.folder, 1000)  # A new server begins with nothing.
  assert not list(inbox.folder.iterdir())
