"""The newest image of a run is read off its TensorBoard files."""

import io

import numpy as np
from PIL import Image

from pir_jax.interface import event_images
from pir_jax.runtime import metric_writer


def pixels(value):
  return np.full((4, 6, 3), value, np.uint8)


def test_the_newest_image_of_each_name(tmp_path):
  assert event_images.newest(tmp_path / "none") == []
  events = metric_writer.Events(tmp_path)
  for step in (1, 2):
    events.add_scalar("loss", 0.5, step)
    events.add_image("faces", pixels(step), step)
  events.add_image("depth", pixels(9), 1)
  events.close()
  depth, faces = event_images.newest(tmp_path)
  assert (depth.name, depth.step) == ("depth", 1)
  assert (faces.name, faces.step) == ("faces", 2)
  image = Image.open(io.BytesIO(faces.png))
  np.testing.assert_array_equal(np.asarray(image), pixels(2))


def test_a_file_that_is_being_written_is_read_up_to_there(tmp_path):
  events = metric_writer.Events(tmp_path)
  events.add_image("faces", pixels(1), 1)
  events.add_image("faces", pixels(2), 2)
  events.close()
  (path,) = tmp_path.iterdir()
  whole = path.read_bytes()
  for size in range(0, len(whole), 7):
    path.write_bytes(whole[:size])
    assert [image.step for image in event_images.newest(tmp_path)] in ([], [1])
  path.write_bytes(whole + b"\xff" * 200)
  assert [image.step for image in event_images.newest(tmp_path)] == [2]
