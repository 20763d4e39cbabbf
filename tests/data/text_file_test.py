"""Lists are read whatever editor saved them."""

import pytest

from pir_jax.data import speakers, text_file
from pir_jax.preparation import batch
from pir_jax.types import InputError

LINES = ["# videos", "Zoë's.mp4", "naïve café.mov"]


@pytest.mark.parametrize(
  "kind",
  [
    "utf-8",
    "utf-8-sig",
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "utf-32",
    "cp1252",
  ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_any_usual_encoding_is_read(tmp_path, kind, end):
  path = tmp_path / "list.txt"
  path.write_bytes(end.join([*LINES, ""]).encode(kind))
  assert text_file.read_lines(path) == LINES
  names = [each.video.name for each in batch.list_videos([str(path)])]
  assert names == LINES[1:]


def test_the_line_of_a_fault_is_named(tmp_path):
  path = tmp_path / "list.txt"
  path.write_bytes(b"a.mp4\nb\x81\x8d.mp4\n")
  with pytest.raises(InputError, match="line 2, is no text: save"):
    text_file.read_lines(path)
  path.write_bytes(b"a.mp4\nb.mp4\n\0\1\2")
  with pytest.raises(InputError, match="line 3"):
    text_file.read_lines(path)


def test_a_table_of_powershell_is_read(tmp_path):
  path = tmp_path / "people.tsv"
  path.write_text("file\tspeaker\r\na.mp4\tAda\r\n", encoding="utf-16")
  assert speakers.read(path) == {"a.mp4": speakers.Entry("Ada")}
  with pytest.raises(InputError, match="cannot be read"):
    speakers.read(tmp_path / "missing.tsv")
