"""Attention biases and the random span masks of speech training.

b batch, h heads, t frames (of queries), s frames (of keys).
A bias is added to attention logits: 0 lets a query see a key, -inf hides it.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def head_slopes(num_heads: int) -> Float[Array, "h"]:
  """Returns the slope of each head's linear bias, ALiBi's geometric rule.

  For a power of two the slopes are 2^(-8 (i + 1) / h), so 4 heads get 1/4,
  1/16, 1/64, 1/256. Otherwise the nearest smaller power of two is completed by
  every other slope of the next one.
  """
  if num_heads < 1:
    raise ValueError(f"num_heads={num_heads} must be at least 1")
  power = 2 ** math.floor(math.log2(num_heads))
  slopes = [2.0 ** (-8 * (i + 1) / power) for i in range(power)]
  between = [
    2.0 ** (-8 * (i + 1) / (2 * power)) for i in range(0, 2 * power, 2)
  ]
  return jnp.asarray(slopes + between[: num_heads - power], jnp.float32)


def temporal_bias(
  queries: Int[Array, "t"],
  keys: Int[Array, "s"],
  *,
  num_heads: int,
  period: int,
  context: int | None = None,
) -> Float[Array, "h t s"]:
  """Returns a causal bias that falls by one slope a period into the past.

  -slope_h floor((i - j) / period) for 0 <= j <= i, else -inf. The supplement
  (eq. 2) prints it without the minus sign, like the FaceFormer paper it takes
  it from; that code negates it, and a plus would favour the far past.

  Args:
    queries: frame indices i.
    keys: frame indices j; a negative one stands for an empty cache slot.
    num_heads: h.
    period: frames over which the bias is constant.
    context: queries see this many frames, their own included; None: all.
  """
  distance = queries[:, None] - keys[None, :]
  seen = (distance >= 0) & (keys[None, :] >= 0)
  if context is not None:
    seen &= distance < context
  steps = jnp.where(seen, distance, 0) // period
  bias = -head_slopes(num_heads)[:, None, None] * steps.astype(jnp.float32)
  return jnp.where(seen, bias, -jnp.inf)


def diagonal_bias(num_frames: int) -> Float[Array, "t t"]:
  """Lets frame i see key i only (supplement, eq. 3)."""
  return jnp.where(jnp.eye(num_frames, dtype=bool), 0.0, -jnp.inf)


def padding_bias(valid: Bool[Array, "b s"]) -> Float[Array, "b 1 1 s"]:
  """Hides padded keys from every query.

  The least float32 instead of -inf: a row of nothing but padding then gives an
  even softmax and not NaN.
  """
  least = jnp.finfo(jnp.float32).min
  return jnp.where(valid[:, None, None, :], 0.0, least)


def random_spans(
  key: Array,
  shape: tuple[int, int],
  *,
  probability: float,
  span: int,
  min_spans: int,
  lengths: Int[Array, "b"] | None = None,
) -> Bool[Array, "b t"]:
  """Samples spans of frames to hide, as SpecAugment for wav2vec 2.0.

  floor(probability length / span + u) spans a row, u uniform in [0, 1), at
  least `min_spans` and never more than fit; starts are sampled without
  replacement, so spans may overlap.

  Args:
    key: random.
    shape: (b, t).
    probability: share of frames covered if no two spans overlapped.
    span: frames in a span, at most t.
    min_spans: least number of spans, whatever the length.
    lengths: true frames of each row; None: all t.
  """
  num_rows, num_frames = shape
  if not 1 <= span <= num_frames:
    raise ValueError(f"span={span} must lie in 1..{num_frames}, the sequence")
  count_key, start_key = jax.random.split(key)
  if lengths is None:
    lengths = jnp.full((num_rows,), num_frames)
  u = jax.random.uniform(count_key, (num_rows,))
  count = jnp.floor(probability * lengths / span + u).astype(jnp.int32)
  count = jnp.minimum(jnp.maximum(count, min_spans), lengths // span)
  # Ranking one uniform value a start samples without replacement, and its
  # shape does not depend on the count.
  starts = jnp.arange(num_frames)
  order = jax.random.uniform(start_key, shape)
  order = jnp.where(starts <= lengths[:, None] - span, order, 2.0)
  rank = jnp.argsort(jnp.argsort(order, axis=-1), axis=-1)
  chosen = rank < count[:, None]
  ends = jnp.cumsum(chosen, axis=-1)
  before = jnp.pad(ends, ((0, 0), (span, 0)))[:, :num_frames]
  return ends > before
