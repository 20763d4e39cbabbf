"""What is told, where, and by which process."""

import pathlib

import numpy as np
from tensorboardX.proto import event_pb2

from pir_jax.runtime import metric_writer

PACE = {
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
    reporter.scalars(50, VALUES, PACE)
    reporter.evaluation(50, {"psnr": 20.0})
    reporter.image(50, "faces", np.zeros((4, 4, 3), np.float32))


def scalars(workdir: pathlib.Path) -> dict[str, float]:
  """Tag to value, of a TensorBoard file: (length, crc, event, crc) records."""
  (path,) = (workdir / "tensorboard").iterdir()
  data, found = path.read_bytes(), {}
  while data:
    size = int.from_bytes(data[:8], "little")
    event = event_pb2.Event.FromString(data[12 : 12 + size])
    found |= {value.tag: value.simple_value for value in event.summary.value}
    data = data[16 + size :]
  return found


def test_tensorboard_has_every_number(tmp_path):
  report(tmp_path)
  found = scalars(tmp_path)
  assert found["pixel"] == 0.25
  assert found["gradient_norm/generator"] == 1.5
  assert found["held_out/psnr"] == 20.0
  assert {f"pace/{name}" for name in PACE} <= found.keys()
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
