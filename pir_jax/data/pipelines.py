"""Batches for the stages: Grain pipelines over prepared clips.

The iterator's state is the number of batches it has made, the same on every
process, so a resumed run sees exactly the batches it would have seen: save its
`get_state()` beside the training state.
"""

import sys
from collections.abc import Sequence

import grain
import numpy as np

from pir_jax.data import speech_augmentation
from pir_jax.data.dataset import Dataset, Split
from pir_jax.data.manifest import Paths
from pir_jax.data.sources import FrameSource, SpeechSource
from pir_jax.types import (
  Cameras,
  ConfigError,
  ExpressionStats,
  FaceBatch,
  SpeechBatch,
)

# Far from the largest length that Python knows: Grain adds to it.
_ENDLESS = sys.maxsize // 4


def _to_faces(arrays: dict[str, np.ndarray]) -> FaceBatch:
  return FaceBatch(
    image=arrays["image"],
    mask=arrays["mask"],
    head=arrays["head"],
    mouth=arrays["mouth"],
    eyes=arrays["eyes"],
    cameras=Cameras(arrays["pose"], arrays["intrinsics"]),
    identity=arrays["identity"],
    expression=arrays["expression"],
    index=arrays["row"],
  )


def _to_speech(arrays: dict[str, np.ndarray]) -> SpeechBatch:
  names = [name for name in SpeechBatch._fields if name != "stats"]
  stats = ExpressionStats(arrays["mean"], arrays["std"])
  return SpeechBatch(**{name: arrays[name] for name in names}, stats=stats)


def _batches(
  source,
  to_batch,
  *,
  batch_size: int,
  seed: int,
  shuffle: bool,
  repeat: bool,
  rows: Sequence[int] | None,
  change=None,
) -> grain.IterDataset:
  dataset = grain.MapDataset.source(source).seed(seed)
  if shuffle:
    dataset = dataset.shuffle()
  if repeat:
    dataset = dataset.repeat()
  if change is not None:
    # Its choices belong to the example's place in the order, so a resumed run
    # and any number of processes see the same ones.
    dataset = dataset.random_map(change)
  # Last, so that the contents of each global batch are the same whatever the
  # number of processes.
  share = batch_size
  if rows is not None:
    dataset, share = _only(dataset, batch_size, rows), len(rows)
  dataset = dataset[:_ENDLESS]
  dataset = dataset.batch(share).map(to_batch)
  # Elements are whole batches here: Grain's default of 500 in flight would
  # fill the memory.
  return dataset.to_iter_dataset(
    grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)
  )


def _only(
  dataset: grain.MapDataset, batch_size: int, rows: Sequence[int]
) -> grain.MapDataset:
  """The examples that lie in `rows` of the batches they will be put into."""
  if sorted(set(rows)) != list(rows) or not rows or rows[-1] >= batch_size:
    raise ValueError(
      f"rows={tuple(rows)} must be ascending rows of batch_size={batch_size}."
    )
  # Processes must take the same number of steps, or they wait forever: no
  # batch may be short.
  num_batches = len(dataset) // batch_size
  if not num_batches:
    raise ConfigError(
      f"batch_size={batch_size} is more than the {len(dataset)} examples:"
      " make it smaller"
    )

  def example(place: int):
    batch, number = divmod(place, len(rows))
    return dataset[batch * batch_size + rows[number]]

  return grain.MapDataset.range(num_batches * len(rows)).map(example)


def face_dataset(
  data: Dataset | Paths,
  *,
  resolution: int,
  batch_size: int,
  seed: int = 0,
  split: Split = "train",
  shuffle: bool = True,
  repeat: bool = True,
  rows: Sequence[int] | None = None,
  around_mask: bool = False,
  cache_bytes: int = 2**30,
) -> grain.IterDataset:
  """Batches of frames with faces (types.FaceBatch), float32.

  Args:
    data: prepared clips, opened or as one folder or many.
    resolution: side of the frames, resized with antialiasing.
    batch_size: of the whole batch, over all processes.
    seed: of the order; every epoch has its own.
    split: "train", or "held_out" for the tail of each clip.
    shuffle: off for a fixed order.
    repeat: endless; off ends after one pass, with a short last batch (which is
      left out where `rows` are named).
    rows: of every batch that are made, ascending; the others are another
      process's. None: all.
    around_mask: frames are the squares around the masks, as stage 3 sees them.
    cache_bytes: memory for decoded frames.

  Raises:
    InputError: a path is not a prepared clip, or the split has no frame.
  """
  source = FrameSource(
    data,
    resolution=resolution,
    split=split,
    around_mask=around_mask,
    cache_bytes=cache_bytes,
  )
  return _batches(
    source,
    _to_faces,
    batch_size=batch_size,
    seed=seed,
    shuffle=shuffle,
    repeat=repeat,
    rows=rows,
  )


def speech_dataset(
  data: Dataset | Paths,
  *,
  num_frames: int,
  margin: int = 0,
  batch_size: int,
  seed: int = 0,
  split: Split = "train",
  shuffle: bool = True,
  repeat: bool = True,
  pauses: speech_augmentation.Config | None = None,
  speeds: Sequence[float] = (1.0,),
  rows: Sequence[int] | None = None,
) -> grain.IterDataset:
  """Batches of windows of speech (types.SpeechBatch), float32.

  Args:
    data: prepared clips with sound, likewise.
    num_frames: ticks of FRAME_RATE in a window; training windows start
      anywhere, held-out ones tile each clip's tail.
    margin: ticks of sound on either side of a window.
    batch_size: of the whole batch, over all processes.
    seed: of the order; every epoch has its own.
    split: "train" or "held_out".
    shuffle: off for a fixed order.
    repeat: endless; off ends after one pass, with a short last batch (which is
      left out where `rows` are named).
    pauses: put into some windows; None: into none.
    speeds: of the training part, see speech_augmentation.at_speed.
    rows: of every batch that are made, ascending; the others are another
      process's. None: all.

  Raises:
    InputError: a path is not a prepared clip, or the split has no speech.
  """
  source = SpeechSource(
    data, num_frames=num_frames, margin=margin, split=split, speeds=speeds
  )
  change = None
  if pauses is not None and pauses.share:

    def change(window, rng):
      return speech_augmentation.at_random(window, rng, pauses)

  return _batches(
    source,
    _to_speech,
    batch_size=batch_size,
    seed=seed,
    shuffle=shuffle,
    repeat=repeat,
    rows=rows,
    change=change,
  )
