"""Resamples sequences in time, joins them, stacks neighbouring frames.

b batch, s input frames, t output frames, o frames of overlap, d channels.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def resample_linear(
  x: Float[Array, "b s d"],
  num_frames: int,
  *,
  lengths: Int[Array, "b"] | None = None,
  new_lengths: Int[Array, "b"] | None = None,
) -> Float[Array, "b t d"]:
  """Resamples linearly in time, keeping the first and the last frame.

  Output frame i lies at i (s - 1) / (t - 1) (torch's `align_corners=True`, as
  FaceFormer aligns audio with video); a single output frame takes the first.

  Args:
    x: the sequences.
    num_frames: t.
    lengths: true frames of each row, so that padding does not change them;
      None: all s.
    new_lengths: true frames of each result; what follows repeats the last.
      None: all t.
  """
  num_rows, num_inputs, _ = x.shape
  if num_frames < 1 or num_inputs < 1:
    raise ValueError(f"cannot resample {num_inputs} frames to {num_frames}")
  if lengths is None:
    lengths = jnp.full((num_rows,), num_inputs)
  if new_lengths is None:
    new_lengths = jnp.full((num_rows,), num_frames)
  last = jnp.maximum(lengths - 1, 0).astype(jnp.float32)[:, None]
  new_last = jnp.maximum(new_lengths - 1, 1).astype(jnp.float32)[:, None]
  index = jnp.arange(num_frames, dtype=jnp.float32)
  place = jnp.minimum(index * (last / new_last), last)
  low = jnp.floor(place).astype(jnp.int32)
  high = jnp.minimum(low + 1, last.astype(jnp.int32))
  weight = (place - low)[..., None].astype(x.dtype)
  left = jnp.take_along_axis(x, low[..., None], axis=1)
  right = jnp.take_along_axis(x, high[..., None], axis=1)
  return left + weight * (right - left)


def stack_neighbours(
  x: Float[Array, "b t d"], radius: int
) -> Float[Array, "b t c"]:
  """Stacks `radius` frames either side, c = (2 radius + 1) d channels.

  From the earliest to the latest; beyond the ends the end itself repeats.
  """
  padded = jnp.pad(x, ((0, 0), (radius, radius), (0, 0)), mode="edge")
  num_frames = x.shape[1]
  shifted = [padded[:, i : i + num_frames] for i in range(2 * radius + 1)]
  return jnp.concatenate(shifted, axis=-1)
