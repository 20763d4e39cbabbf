"""Memory is estimated from a trace: what lives together, counted once."""

import jax
import jax.numpy as jnp

from pir_jax.runtime import memory, memory_estimate

BLOCK = 256 * 256 * 4


def estimate(function, *shapes):
  args = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  return memory_estimate.temporaries(jax.jit(function).trace(*args).jaxpr.jaxpr)


def chain(x, num=6):
  for _ in range(num):
    x = jnp.tanh(x @ x)
  return jnp.sum(x)


def test_a_value_lives_until_it_is_last_read():
  # A product and the one it is made of; what tanh gives is fused or read twice.
  assert 2 * BLOCK <= estimate(chain, (256, 256)) <= 3.1 * BLOCK
  long = estimate(lambda x: chain(x, 30), (256, 256))
  assert long == estimate(chain, (256, 256))


def test_a_gradient_keeps_every_layer():
  grown = estimate(jax.grad(lambda x: chain(x, 12)), (256, 256))
  few = estimate(jax.grad(lambda x: chain(x, 6)), (256, 256))
  assert grown - few >= 6 * BLOCK


def test_one_elementwise_operation_after_another_takes_nothing():
  assert estimate(lambda x: jnp.exp(2 * x + 1), (256, 256)) == 0


def test_a_loop_takes_what_one_turn_takes():
  def loop(x):
    return jax.lax.scan(lambda c, _: (jnp.tanh(c @ c @ c), None), x, length=50)[
      0
    ]

  assert estimate(loop, (256, 256)) <= 4 * BLOCK


def test_it_is_near_what_the_compiler_says():
  x = jax.ShapeDtypeStruct((256, 256), jnp.float32)
  function = jax.grad(chain)
  truth = memory.measure(jax.jit(function).lower(x)).temporaries
  assert 0.5 * truth <= estimate(function, (256, 256)) <= 2.0 * truth


def test_the_memory_of_this_machine_is_known():
  free = memory_estimate.free_bytes(jax.devices()[0])
  assert free is None or 2**26 < free < 2**50
