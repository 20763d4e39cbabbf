"""Training and evaluation show the network the same bits; in use, nearly so.

On the packaged clip, prepared and tracked for each as it is in use.
"""

import numpy as np
import pytest

from pir_jax import assets
from pir_jax.data import pipelines
from pir_jax.data.dataset import Clip, Dataset
from pir_jax.evaluation import held_out_frames
from pir_jax.inference import reenactor
from pir_jax.inference import source as source_lib
from pir_jax.inference.person import KnownPerson, Person
from pir_jax.media import fill, video_reader
from pir_jax.preparation import pipeline, tracking
from pir_jax.runtime import section_timer

SIDE = 128


class Witness(Person):
  """Keeps what the network is shown."""

  def __init__(self, clip):
    self.resolution, self.space = SIDE, Dataset([clip]).space
    self.phases = section_timer.SectionTimer()
    self.stats = clip.expression_stats
    self.shown = []

  def in_step(self, clip):
    return clip

  def predict_expression(self, audio):
    ticks = -(-len(audio) // 640)
    return np.zeros((ticks, self.space.expression_size), np.float32)

  def inpaint(self, image, mask, cameras, expression):
    for row in zip(image, mask, cameras.pose, cameras.intrinsics, strict=True):
      self.shown.append(row)
    return np.zeros_like(image)


@pytest.mark.slow
def test_the_network_is_shown_the_same_everywhere(tmp_path):
  video = assets.fetch("demo_video")
  pipeline.prepare(video, tmp_path / "me", with_page=False)
  clip = Clip.open(tmp_path / "me")
  data = Dataset([clip])
  known = KnownPerson.from_record(data.people[0])
  witness = Witness(clip)

  # In use: tracked anew, with what a run knows of the person.
  info = video_reader.probe(video)
  tracked = tracking.track(video, video=info, **known.tracking_options())
  count, size = len(tracked.track.times), data.space.expression_size
  frames = reenactor.inpaint_frames(
    source_lib.Source(witness, known, tracked),
    fill.read(tracked.path, tracked.track.times, np.arange(count)),
    np.zeros((count, size), np.float32),
    np.zeros(size, bool),
  )
  assert len(list(frames)) == count
  in_use = dict(
    zip(np.flatnonzero(tracked.track.present), witness.shown, strict=True)
  )

  stored = {}

  def compare(index, image, mask, pose, intrinsics):
    *pixels, used_pose, used_intrinsics = in_use[int(index)]
    np.testing.assert_array_equal(used_pose, pose)
    np.testing.assert_array_equal(used_intrinsics, intrinsics)
    # Cut from the frame at once, and not from a stored window: of this face,
    # which is enlarged, 1.1 grey levels; and all that is masked is masked.
    seen = (mask < 0.5) & (pixels[1] < 0.5)
    assert 127.5 * np.abs(pixels[0] - image)[seen[..., 0]].mean() < 1.5
    assert (pixels[1] >= mask).all()
    bits = stored.setdefault(int(index), (image, mask))
    for one, other in zip(bits, (image, mask), strict=True):
      np.testing.assert_array_equal(one, other)

  for split in ("train", "held_out"):
    batches = pipelines.face_dataset(
      data,
      resolution=SIDE,
      batch_size=1,
      split=split,
      shuffle=False,
      repeat=False,
      around_mask=True,
    )
    for index, batch in zip(clip.frames(split), batches, strict=True):
      compare(
        index,
        batch.image[0],
        batch.mask[0],
        batch.cameras.pose[0],
        batch.cameras.intrinsics[0],
      )
  assert set(stored) == set(np.flatnonzero(tracked.track.present).tolist())
  held_out = held_out_frames.read_held_out(clip, witness)
  for i, index in enumerate(held_out.index):
    cameras = held_out.cameras
    compare(
      index,
      held_out.image[i],
      held_out.cover[i],
      cameras.pose[i],
      cameras.intrinsics[i],
    )
