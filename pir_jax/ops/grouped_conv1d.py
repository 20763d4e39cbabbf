"""A long grouped convolution in time: wav2vec 2.0's positions.

b batch, t frames, k kernel size, d channels, i channels of a group, g groups.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Offsets summed at once: products of 8 * 64 channels fill a matrix unit.
_CHUNK = 8


@functools.partial(jax.checkpoint, prevent_cse=False)
def correlate(
  x: Float[Array, "b t d"], kernel: Float[Array, "k i d"]
) -> Float[Array, "b t d"]:
  """Correlates each group of channels, zeros around the ends, in float32.

  An even kernel sees one frame less after than before. On a CPU by Fourier
  transforms: as fast as the direct sum, whose gradient by a grouped kernel
  takes ten times as long in XLA's CPU backend. Elsewhere by products of a few
  kernel offsets at a time: the TPU's compiler takes minutes over a grouped
  convolution, and longer over the transforms. The gradient keeps nothing but
  the two inputs.
  """
  return jax.lax.platform_dependent(
    x.astype(jnp.float32), kernel, cpu=by_transforms, default=by_offsets
  )


def by_transforms(
  x: Float[Array, "b t d"], kernel: Float[Array, "k i d"]
) -> Float[Array, "b t d"]:
  """Computes `correlate` by Fourier transforms of blocks."""
  (length, size, width), (batch, num_frames, _) = kernel.shape, x.shape
  hop = 1 << (length - 1).bit_length()
  num_blocks, before = -(-num_frames // hop), length // 2
  after = (num_blocks + 1) * hop - num_frames - before
  y = jnp.pad(x, ((0, 0), (before, after), (0, 0)))
  y = y.reshape(batch, num_blocks + 1, hop, width)
  # Blocks of 2 hops: what wraps around falls on the second, which is cut.
  y = jnp.fft.rfft(jnp.concatenate([y[:, :-1], y[:, 1:]], axis=2), axis=2)
  # The conjugate: a network's kernel is not turned round.
  filters = jnp.conj(jnp.fft.rfft(kernel, 2 * hop, axis=0))
  y = jnp.einsum(
    "bmfgi,figo->bmfgo",
    y.reshape(batch, num_blocks, hop + 1, -1, size),
    filters.reshape(hop + 1, size, -1, size),
  ).reshape(batch, num_blocks, hop + 1, width)
  y = jnp.fft.irfft(y, axis=2)[:, :, :hop].reshape(batch, -1, width)
  return y[:, :num_frames]


def by_offsets(
  x: Float[Array, "b t d"], kernel: Float[Array, "k i d"]
) -> Float[Array, "b t d"]:
  """Computes `correlate` by sums over a few kernel offsets at a time."""
  (length, size, width), (batch, num_frames, _) = kernel.shape, x.shape
  num_parts = -(-length // _CHUNK)
  spare = num_parts * _CHUNK - length  # Zeros at the kernel's end.
  kernel = jnp.pad(kernel, ((0, spare), (0, 0), (0, 0)))
  before = length // 2
  after = length - 1 - before + spare
  x = jnp.pad(x, ((0, 0), (before, after), (0, 0)))
  x = x.reshape(batch, -1, width // size, size)

  def add(y, part):
    begin, filters = part
    seen = jnp.stack(
      [
        jax.lax.dynamic_slice_in_dim(x, begin + k, num_frames, 1)
        for k in range(_CHUNK)
      ],
      axis=3,
    )
    return y + jnp.einsum("btgki,kigo->btgo", seen, filters), None

  y, _ = jax.lax.scan(
    add,
    jnp.zeros((batch, num_frames, width // size, size)),
    (
      _CHUNK * jnp.arange(num_parts),
      kernel.reshape(num_parts, _CHUNK, size, -1, size),
    ),
  )
  return y.reshape(batch, num_frames, width)
