"""Figures reach TensorBoard's file, and a full disk is no silence."""

import os

import numpy as np
import pytest
from tensorboardX import record_writer
from tensorboardX.proto import event_pb2

from pir_jax.runtime import event_writer


def read(path):
  """Every event: an 8-byte length, 4 bytes, the event, 4 bytes."""
  content, found = path.read_bytes(), []
  while content:
    size = int.from_bytes(content[:8], "little")
    found.append(event_pb2.Event.FromString(content[12 : 12 + size]))
    content = content[16 + size :]
  return found


def test_what_is_added_is_read_back(tmp_path):
  writer = event_writer.Events(tmp_path / "tensorboard")
  writer.add_scalar("loss", 0.5, 3)
  writer.add_image("face", np.zeros((4, 6, 3), np.uint8), 4)
  writer.close()
  (path,) = (tmp_path / "tensorboard").iterdir()
  _, figure, picture = read(path)
  assert (figure.step, figure.summary.value[0].tag) == (3, "loss")
  assert figure.summary.value[0].simple_value == 0.5
  image = picture.summary.value[0].image
  assert (picture.step, image.height, image.width) == (4, 4, 6)


@pytest.mark.skipif(
  not os.path.exists("/dev/full"), reason="only Linux has a disk always full"
)
def test_a_full_disk_is_an_error_and_at_the_end_a_warning(
  tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(
    record_writer, "open_file", lambda path: open("/dev/full", "wb")
  )
  writer = event_writer.Events(tmp_path)
  with pytest.raises(OSError, match="No space left"):
    for step in range(10_000):
      writer.add_scalar("loss", 0.5, step)
  writer.close()
  assert "TensorBoard are lost (No space" in capsys.readouterr().err
