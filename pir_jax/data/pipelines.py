"""Batches for the stages: Grain pipelines over prepared clips.

The iterator's state is the number of batches it has given, so a resumed run
sees exactly the batches it would have seen: save it with
`grain.checkpoint.CheckpointSave(iterator)` beside the training state.
"""

import sys
from collections.abc import Sequence

import grain
import numpy as np

from pir_jax.data import speech
from pir_jax.data.manifest import Paths
from pir_jax.data.sources import FrameSource, SpeechSource, Split
from pir_jax.types import Cameras, FaceBatch, SpeechBatch

# Far from the largest length that Python can tell: Grain adds to it.
_ENDLESS = sys.maxsize // 4


def _to_faces(arrays: dict[str, np.ndarray]) -> FaceBatch:
  return FaceBatch(
    image=arrays["image"],
    mask=arrays["mask"],
    head=arrays["head"],
    mouth=arrays["mouth"],
    cameras=Cameras(arrays["pose"], arrays["intrinsics"]),
    identity=arrays["identity"],
    expression=arrays["expression"],
    index=arrays["row"],
  )


def _to_speech(arrays: dict[str, np.ndarray]) -> SpeechBatch:
  return SpeechBatch(**{name: arrays[name] for name in SpeechBatch._fields})


def _batches(
  source,
  to_batch,
  *,
  batch_size: int,
  seed: int,
  shuffle: bool,
  repeat: bool,
  process_index: int,
  process_count: int,
  change=None,
) -> grain.IterDataset:
  if batch_size % process_count:
    raise ValueError(
      f"batch_size={batch_size} must be a multiple of process_count="
      f"{process_count}: each process takes an equal share"
    )
  dataset = grain.MapDataset.source(source).seed(seed)
  if shuffle:
    dataset = dataset.shuffle()
  if repeat:
    dataset = dataset.repeat()
  elif process_count > 1:
    # Processes must take the same number of steps, or they wait forever.
    whole = len(dataset) // batch_size * batch_size
    if not whole:
      raise ValueError(
        f"batch_size={batch_size} is more than the {len(dataset)} examples:"
        " make it smaller"
      )
    dataset = dataset[:whole]
  if change is not None:
    # Its draws belong to the example's place in the order, so a resumed run and
    # any number of processes see the same ones.
    dataset = dataset.random_map(change)
  # Slicing after shuffling and repeating keeps the contents of each global
  # batch the same whatever the number of processes.
  dataset = dataset[process_index:_ENDLESS:process_count]
  dataset = dataset.batch(batch_size // process_count).map(to_batch)
  # Elements are whole batches here: Grain's default of 500 in flight would
  # fill the memory.
  return dataset.to_iter_dataset(
    grain.ReadOptions(num_threads=2, prefetch_buffer_size=2)
  )


def face_dataset(
  paths: Paths,
  *,
  resolution: int,
  batch_size: int,
  seed: int = 0,
  split: Split = "train",
  shuffle: bool = True,
  repeat: bool = True,
  process_index: int = 0,
  process_count: int = 1,
  cache_bytes: int = 2**30,
) -> grain.IterDataset:
  """Batches of frames with faces (types.FaceBatch), float32.

  Args:
    paths: prepared clips, one folder or many.
    resolution: side of the frames, resized with antialiasing.
    batch_size: over all processes; each gets its share.
    seed: of the order; every epoch has its own.
    split: "train", or "held_out" for the tail of each clip.
    shuffle: off for a fixed order.
    repeat: endless; off ends after one pass, with a short last batch (which is
      left out where there are several processes).
    process_index: of this process.
    process_count: of all processes.
    cache_bytes: memory for decoded frames.

  Raises:
    InputError: a path is not a prepared clip, or the split has no frame.
  """
  source = FrameSource(
    paths, resolution=resolution, split=split, cache_bytes=cache_bytes
  )
  return _batches(
    source,
    _to_faces,
    batch_size=batch_size,
    seed=seed,
    shuffle=shuffle,
    repeat=repeat,
    process_index=process_index,
    process_count=process_count,
  )


def speech_dataset(
  paths: Paths,
  *,
  num_frames: int,
  batch_size: int,
  seed: int = 0,
  split: Split = "train",
  shuffle: bool = True,
  repeat: bool = True,
  pauses: speech.Config | None = None,
  speeds: Sequence[float] = (1.0,),
  process_index: int = 0,
  process_count: int = 1,
) -> grain.IterDataset:
  """Batches of windows of speech (types.SpeechBatch), float32.

  Args:
    paths: prepared clips with sound.
    num_frames: ticks of FRAME_RATE in a window; training windows start
      anywhere, held-out ones tile each clip's tail.
    batch_size: over all processes; each gets its share.
    seed: of the order; every epoch has its own.
    split: "train" or "held_out".
    shuffle: off for a fixed order.
    repeat: endless; off ends after one pass, with a short last batch (which is
      left out where there are several processes).
    pauses: put into some windows; None: into none.
    speeds: at which the training part is spoken, see speech.at_speed.
    process_index: of this process.
    process_count: of all processes.

  Raises:
    InputError: a path is not a prepared clip, or the split has no speech.
  """
  source = SpeechSource(
    paths, num_frames=num_frames, split=split, speeds=speeds
  )
  change = None
  if pauses is not None and pauses.share:

    def change(window, rng):
      return speech.at_random(window, rng, pauses)

  return _batches(
    source,
    _to_speech,
    batch_size=batch_size,
    seed=seed,
    shuffle=shuffle,
    repeat=repeat,
    process_index=process_index,
    process_count=process_count,
    change=change,
  )
