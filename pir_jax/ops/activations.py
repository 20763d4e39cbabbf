"""Activations of the StyleGAN2 family."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

SLOPE = 0.2
LEAKY_GAIN = math.sqrt(2)


def leaky_relu(
  x: Float[Array, "*b"], *, gain: float = LEAKY_GAIN
) -> Float[Array, "*b"]:
  """Applies a leaky ReLU of slope 0.2, scaled by `gain` (StyleGAN2)."""
  return jax.nn.leaky_relu(x, SLOPE) * gain


def normalize_second_moment(x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
  """Divides by the root mean square over the last axis."""
  mean_square = jnp.mean(jnp.square(x), -1, keepdims=True)
  return x * jax.lax.rsqrt(mean_square + 1e-8)


@jax.custom_jvp
def softplus(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
  """Computes log(1 + exp(x)).

  Its gradient is one sigmoid. The one that JAX derives computes the value anew
  and its exponential, which takes XLA's CPU backend three times as long.
  """
  return jax.nn.softplus(x)


@softplus.defjvp
def _softplus_jvp(primals, tangents):
  (x,), (change,) = primals, tangents
  return softplus(x), jax.nn.sigmoid(x) * change
