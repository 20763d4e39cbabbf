"""Outputs: whole or not at all, and refused before the work."""

import errno
import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from pir_jax.media import video_writer, whole_file
from pir_jax.types import InputError


def test_a_file_is_whole_or_not_there(tmp_path):
  path = tmp_path / "a.png"
  with (
    pytest.raises(RuntimeError, match="a bug"),
    whole_file.written(path) as hidden,
  ):
    hidden.write_bytes(b"half")
    raise RuntimeError("a bug")
  assert list(tmp_path.iterdir()) == []
  path.write_bytes(b"old")
  with (
    pytest.raises(InputError, match=r"a\.png cannot be written \(No space"),
    whole_file.written(path) as hidden,
  ):
    hidden.write_bytes(b"half")
    raise OSError(errno.ENOSPC, "full", str(hidden))
  assert path.read_bytes() == b"old"
  with whole_file.written(path) as hidden:
    hidden.write_bytes(b"new")
  assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


def test_a_link_is_followed(tmp_path):
  (tmp_path / "far").mkdir()
  target, link = tmp_path / "far/a.png", tmp_path / "a.png"
  target.write_bytes(b"old")
  link.symlink_to(target)
  with whole_file.written(link) as hidden:
    hidden.write_bytes(b"new")
  assert link.is_symlink() and target.read_bytes() == b"new"


@pytest.mark.parametrize(
  ("name", "what"),
  [
    ("folder.mp4", "is a folder"),
    ("a.avi", "must end in .mp4"),
    ("missing/a.mp4", "make it first"),
    ("file.txt/a.mp4", "no folder but a file"),
  ],
)
def test_a_place_is_checked_before_the_work(tmp_path, name, what):
  (tmp_path / "folder.mp4").mkdir()
  (tmp_path / "file.txt").write_text("")
  with pytest.raises(InputError, match=what):
    whole_file.check(tmp_path / name, (".mp4",))
  with pytest.raises(InputError, match=what):
    video_writer.VideoWriter(tmp_path / name, (16, 16), Fraction(25))


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_to(tmp_path):
  tmp_path.chmod(0o500)
  with pytest.raises(InputError, match="may not be written"):
    whole_file.check_folder(tmp_path / "report")


def test_a_folder_to_be_made(tmp_path):
  whole_file.check_folder(tmp_path / "a/b/c")
  (tmp_path / "file").write_text("")
  with pytest.raises(InputError, match="no folder but a file"):
    whole_file.check_folder(tmp_path / "file/b")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
  # The hidden file is a link to a device that is always full.
  made = whole_file.uuid.uuid4()
  monkeypatch.setattr(whole_file.uuid, "uuid4", lambda: made)
  (tmp_path / f".{made.hex}.mp4").symlink_to("/dev/full")
  path = tmp_path / "o.mp4"
  noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
  with (
    pytest.raises(InputError, match=r"o\.mp4 cannot be written \(No space"),
    video_writer.VideoWriter(path, (64, 64), Fraction(25)) as sink,
  ):
    for _ in range(50):
      sink.write(noise)
  assert list(tmp_path.iterdir()) == []


def test_standard_output_gets_nothing_but_what_is_written():
  code = """
import os
from pir_jax.media import whole_file
with whole_file.opened("-", ()) as file:
  print("progress")
  os.write(1, b"a library's word")
  file.write(b"data")
print("after")
"""
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, check=True
  )
  assert done.stdout == b"dataafter\n"
  assert b"progress" in done.stderr and b"library" in done.stderr


def test_a_file_is_opened_whole_or_not_at_all(tmp_path):
  path = tmp_path / "a b.raw"
  with whole_file.opened(str(path), (".raw",)) as file:
    file.write(b"data")
    assert not path.exists()
  assert path.read_bytes() == b"data"
  with (
    pytest.raises(KeyError),
    whole_file.opened(str(path), (".raw",)) as file,
  ):
    file.write(b"other")
    raise KeyError
  assert path.read_bytes() == b"data"
  assert list(tmp_path.iterdir()) == [path]


def test_a_file_is_finished_before_it_gets_its_name(tmp_path):
  path = tmp_path / "o.raw"

  def finish(hidden):
    assert hidden.read_bytes() == b"data" and not path.exists()
    hidden.write_bytes(b"data, finished")

  with whole_file.opened(str(path), (".raw",), finish) as file:
    file.write(b"data")
  assert path.read_bytes() == b"data, finished"
