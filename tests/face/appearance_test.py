"""What tells two people of the packaged clip apart."""

import av
import numpy as np
import pytest

from pir_jax import assets
from pir_jax.face import appearance, detector


@pytest.fixture(scope="module")
def seen():
  """Frames with the landmarks of each of two people."""
  tracker = detector.Tracker()
  with av.open(str(assets.fetch("demo_video"))) as video:
    frames = [f.to_ndarray(format="rgb24") for f in video.decode(video=0)]
  boxes = [box[:4] for box in tracker.detect(frames[0])]
  rows = []
  for frame in frames[:60:3]:
    points = [tracker.landmarks(frame, box)[0] for box in boxes]
    boxes = [detector.box_of(p) for p in points]
    rows.append((frame, points))
  return rows


def test_same_person_is_nearer_than_another(seen):
  first, second = (
    [appearance.describe(frame, points[k]) for frame, points in seen]
    for k in (0, 1)
  )

  def gallery(looks):
    found = appearance.Gallery()
    for look in looks:
      found.add(look)
    return found

  for looks, others in ((first, second), (second, first)):
    early, late = gallery(looks[:10]), gallery(looks[10:])
    assert early.distance(late) < appearance.SAME
    assert early.distance(gallery(others)) > appearance.SAME


def test_light_and_contrast_of_the_picture_hardly_count(seen):
  frame, (points, _) = seen[0]
  dark = (frame * 0.6).astype(np.uint8)
  look = appearance.describe(frame, points)
  # What is left is the ten levels that are added against noise.
  away = appearance.distance(look, appearance.describe(dark, points))
  assert away < appearance.SAME / 2


def test_a_covered_part_hardly_counts(seen):
  frame, (points, _) = seen[0]
  look = appearance.describe(frame, points)
  covered = look.copy()
  covered[points[:, 1] > np.quantile(points[:, 1], 0.6)] += 1
  # The median is of the rest.
  assert appearance.distance(look, covered) == 0


def test_description_turns_and_grows_with_the_face(seen):
  frame, (points, _) = seen[0]
  look = appearance.describe(frame, points)
  large = np.repeat(np.repeat(frame, 2, 0), 2, 1)
  got = appearance.describe(large, 2 * points)
  assert appearance.distance(look, got) < appearance.SAME / 3
  turned = np.rot90(frame).copy()  # (x, y) -> (y, width - x).
  rotated = points.copy()
  rotated[:, 0], rotated[:, 1] = points[:, 1], frame.shape[1] - points[:, 0]
  got = appearance.describe(turned, rotated)
  assert appearance.distance(look, got) < appearance.SAME / 3


def test_gallery_keeps_few_and_different_examples():
  rng = np.random.default_rng(0)
  gallery = appearance.Gallery(capacity=5)
  looks = rng.normal(size=(40, 9, 3)).astype(np.float32)
  for look in looks:
    gallery.add(look)
    gallery.add(look)
  assert 1 <= len(gallery.examples) <= 5
  for k, one in enumerate(gallery.examples):
    for other in gallery.examples[:k]:
      assert appearance.distance(one, other) > 0
  assert gallery.distance_to(gallery.examples[0]) == 0
