"""What compiled programs take: known sizes of known programs."""

import functools
import platform
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from pir_jax.runtime import memory
from pir_jax.types import InputError

SIDE = 64
BYTES = 4 * SIDE * SIDE
MATRIX = jax.ShapeDtypeStruct((SIDE, SIDE), jnp.float32)


def test_sizes_of_a_product_are_those_of_its_matrices():
  found = memory.measure(jax.jit(jnp.matmul).lower(MATRIX, MATRIX))
  assert found.arguments == 2 * BYTES
  assert found.outputs == BYTES
  assert found.reused == 0
  assert found.peak >= 3 * BYTES
  # A product and a sum for each of n^3 triples.
  assert found.flops == pytest.approx(2 * SIDE**3)
  assert found.seconds > 0


def test_an_argument_that_is_given_away_is_counted_once():
  def step(x, y):
    return x + y

  kept = memory.measure(jax.jit(step).lower(MATRIX, MATRIX))
  given = memory.measure(jax.jit(step, donate_argnums=0).lower(MATRIX, MATRIX))
  assert given.reused == BYTES
  assert kept.peak - given.peak == BYTES


def test_sizes_are_of_one_device():
  mesh = jax.make_mesh(
    (4,),
    ("data",),
    axis_types=(jax.sharding.AxisType.Auto,),
    devices=jax.devices()[:4],
  )
  sharding = jax.sharding.NamedSharding(
    mesh, jax.sharding.PartitionSpec("data")
  )
  shared = jax.ShapeDtypeStruct((SIDE, SIDE), jnp.float32, sharding=sharding)
  found = memory.measure(jax.jit(lambda x: 2 * x).lower(shared))
  assert found.arguments == found.outputs == BYTES // 4


def test_the_body_of_a_loop_counts_once():
  def loop(x, length):
    return jax.lax.scan(lambda y, _: (y @ x, None), x, None, length=length)[0]

  once, often = (
    memory.measure(
      jax.jit(functools.partial(loop, length=length)).lower(MATRIX)
    )
    for length in (1, 50)
  )
  # The counter's own additions are not even a thousandth.
  assert often.flops == pytest.approx(once.flops, rel=1e-3)


class _Lowered(jax.stages.Lowered):
  def __init__(self, message):
    self._message = message

  def compile(self, compiler_options=None):
    raise jax.errors.JaxRuntimeError(self._message)


def test_what_does_not_fit_is_told_in_one_sentence():
  # As TPU compilers say it; the CPU's has no limit.
  with pytest.raises(
    InputError, match="does not fit .*17.0G of 16.0G"
  ) as error:
    memory.measure(_Lowered("RESOURCE_EXHAUSTED: used 17.0G of 16.0G.\nMore"))
  assert "\n" not in str(error.value)
  with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
    memory.measure(_Lowered("INTERNAL: a bug"))


@pytest.mark.parametrize(
  ("num_bytes", "text"),
  [
    (0, "0 B"),
    (999, "999 B"),
    (1000, "0.977 KiB"),
    (1536, "1.5 KiB"),
    (5 * 2**30, "5 GiB"),
    (3 * 2**50, "3.07e+03 TiB"),
  ],
)
def test_bytes_have_a_unit_and_three_digits(num_bytes, text):
  assert memory.readable(num_bytes) == text


def test_the_description_holds_the_peak():
  footprint = memory.Footprint(
    arguments=4096,
    outputs=2048,
    reused=1024,
    temporaries=3072,
    code=0,
    flops=None,
    seconds=1.25,
  )
  assert footprint.peak == 8192
  lines = memory.describe(footprint).splitlines()
  assert lines[0].startswith("8 KiB at the peak")
  assert not any("FLOP" in line or "code" in line for line in lines)


_REPEATED = """
import resource, sys
import numpy as np
from pir_jax.runtime import memory
if sys.argv[1] == "keep":
  memory.keep_pages()
faults = []
for _ in range(8):
  before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
  np.ones(2**23)
  faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(faults[-1])
"""


@pytest.mark.skipif(
  platform.libc_ver()[0] != "glibc", reason="only glibc has the switches"
)
def test_memory_that_was_kept_is_not_cleared_again():
  kept, usual = (
    int(
      subprocess.run(
        [sys.executable, "-c", _REPEATED, word],
        check=True,
        capture_output=True,
        text=True,
      ).stdout
    )
    for word in ("keep", "usual")
  )
  # 64 MiB are 16384 pages of 4 KiB, or 32 of 2 MiB.
  assert kept < 16 < usual
