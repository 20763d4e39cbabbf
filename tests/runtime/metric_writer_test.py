"""Metrics reach the terminal and TensorBoard, from one process."""

import os
import pathlib

import numpy as np
import pytest
from tensorboardX import record_writer
from tensorboardX.proto import event_pb2

from pir_jax.runtime import metric_writer

THROUGHPUT = {
  "step_seconds": 0.5,
  "data_wait_seconds": 0.1,
  "examples_per_second_per_device": 4.0,
  "process_memory_gib": 1.25,
}
VALUES = {"pixel": 0.25, "loss": 0.75, "gradient_norm/generator": 1.5}


def report(workdir):
  with metric_writer.Reporter(workdir, name="line", num_steps=100) as reporter:
    reporter.start(0)
    reporter.compiled(1, VALUES)
    reporter.scalars(50, VALUES, THROUGHPUT)
    reporter.evaluation(50, {"psnr": 20.0})
    reporter.image(50, "faces", np.zeros((4, 4, 3), np.float32))


def events(path: pathlib.Path) -> list[event_pb2.Event]:
  """Reads a TensorBoard file: (length, crc, event, crc) records."""
  data, records = path.read_bytes(), []
  while data:
    size = int.from_bytes(data[:8], "little")
    records.append(event_pb2.Event.FromString(data[12 : 12 + size]))
    data = data[16 + size :]
  return records


def scalars(workdir: pathlib.Path) -> dict[str, float]:
  """Reads tags and values of the only TensorBoard file."""
  (path,) = (workdir / "tensorboard").iterdir()
  return {
    value.tag: value.simple_value
    for event in events(path)
    for value in event.summary.value
  }


def test_tensorboard_has_every_number(tmp_path):
  report(tmp_path)
  found = scalars(tmp_path)
  assert found["pixel"] == 0.25
  assert found["gradient_norm/generator"] == 1.5
  assert found["held_out/psnr"] == 20.0
  assert {f"throughput/{name}" for name in THROUGHPUT} <= found.keys()
  assert "faces" in found
  assert found["first_step_seconds"] >= 0.0


def test_a_line_has_room_for_few_numbers(tmp_path, capsys):
  report(tmp_path)
  lines = [line for line in capsys.readouterr().out.splitlines() if line]
  assert lines[2] == (
    "line 50/100  0.5 s/step  4 examples/s/device  waits 0.1 s for data  "
    "1.25 GiB  loss 0.75  norm/generator 1.5  25 s left"
  )


def test_other_processes_are_silent(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(metric_writer.jax, "process_index", lambda: 1)
  report(tmp_path)
  assert not capsys.readouterr().out.strip()
  assert not list(tmp_path.iterdir())


def test_what_is_added_is_read_back(tmp_path):
  writer = metric_writer.Events(tmp_path / "tensorboard")
  writer.add_scalar("loss", 0.5, 3)
  writer.add_image("face", np.zeros((4, 6, 3), np.uint8), 4)
  writer.close()
  (path,) = (tmp_path / "tensorboard").iterdir()
  _, figure, picture = events(path)
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
  writer = metric_writer.Events(tmp_path)
  with pytest.raises(OSError, match="No space left"):
    for step in range(10_000):
      writer.add_scalar("loss", 0.5, step)
  writer.close()
  assert "TensorBoard are lost (No space" in capsys.readouterr().err
