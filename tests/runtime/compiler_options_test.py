"""Options of the compiler: a program for users takes Eigen's convolutions."""

import jax
import jax.numpy as jnp

from pir_jax.runtime import compiler_options, sharding


def test_convolutions_are_not_handed_to_the_slower_library():
  x, kernel = jnp.ones((1, 34, 34, 64)), jnp.ones((3, 3, 64, 64))

  def correlate(x, kernel):
    layout = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
      x, kernel, (1, 1), "VALID", dimension_numbers=layout
    )

  def library(options):
    run = jax.jit(correlate, compiler_options=options).lower(x, kernel)
    return "ynn" in run.compile().as_text()

  assert library(None)  # Or the option is no longer needed.
  assert not library(compiler_options.usual())
  assert not library(compiler_options.quick_to_compile())


def test_options_are_those_of_the_mesh():
  mesh = sharding.make_mesh(1, jax.devices()[:1])
  assert compiler_options.on_cpu(mesh)
  assert compiler_options.usual(mesh) == compiler_options.usual()
