"""Bytes of compiled programs: known ones of known programs."""

import pathlib

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from pir_jax.profiling import hlo

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
SIDE = 256
BYTES = 4 * SIDE * SIDE


def compiled(function, *shapes):
  return jax.jit(function).lower(*shapes).compile().as_text()


def matrix(spec=None):
  sharding = None
  if spec is not None:
    mesh = jax.make_mesh(
      (8,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()
    )
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
  return jax.ShapeDtypeStruct((SIDE, SIDE), jnp.float32, sharding=sharding)


def test_what_is_read_and_written_counts_once_each():
  found = hlo.traffic(compiled(lambda x, y: x * y + 1, matrix(), matrix()))
  assert found.memory == 3 * BYTES
  assert not any(found.collectives.values())


def test_a_loop_counts_as_often_as_it_runs():
  def loop(x, length):
    return jax.lax.fori_loop(0, length, lambda i, y: jnp.sin(y) @ x, x)

  few, many = (
    hlo.traffic(compiled(lambda x, n=n: loop(x, n), matrix())).memory
    for n in (10, 30)
  )
  # Each turn reads two matrices and writes one, in two programs of five; what
  # is around the loop is the same.
  each = (many - few) / 20
  assert 3 * BYTES <= each <= 6 * BYTES
  assert few < 12 * each


def test_a_slice_of_something_large_is_not_all_of_it():
  def rows(x):
    def add(total, i):
      return total + jax.lax.dynamic_slice_in_dim(x, i, 1), None

    return jax.lax.scan(add, jnp.zeros((1, SIDE)), jnp.arange(SIDE))[0]

  found = hlo.traffic(compiled(rows, matrix()))
  # Every row once, beside a few rows a turn; SIDE matrices were it all of it.
  assert found.memory < 10 * BYTES


def test_a_sum_over_devices_is_an_all_reduce_of_its_result():
  found = hlo.traffic(compiled(lambda x: jnp.sum(x, 0), matrix(("data",))))
  assert found.collectives["all-reduce"] == 4 * SIDE
  assert found.collectives["all-gather"] == 0


def test_what_is_gathered_counts_whole():
  whole = NamedSharding(matrix(("data",)).sharding.mesh, PartitionSpec())
  text = (
    jax.jit(lambda x: 2 * x, out_shardings=whole)
    .lower(matrix(("data",)))
    .compile()
    .as_text()
  )
  assert hlo.traffic(text).collectives["all-gather"] == BYTES


@pytest.mark.parametrize(
  ("shape", "on_chip", "size"),
  [
    ("f32[8,128]{1,0:T(8,128)}", True, 4096),
    ("f32[8,128]{1,0:T(8,128)S(1)}", False, 0),
    ("(bf16[4]{0}, s32[], /*index=2*/pred[3]{0})", True, 8 + 4 + 3),
    ("u4[10]{0}", True, 5),
    ("token[]", True, 0),
    ("f8e4m3fn[6]{0}", True, 6),
    ("c64[2]{0}", True, 16),
  ],
)
def test_bytes_of_a_shape(shape, on_chip, size):
  assert hlo.num_bytes(shape, on_chip=on_chip) == size


# As the TPU's compiler writes: prefetches into the chip's memory, tiled
# layouts, loops without a count of their own.
TPU = (GOLDENS / "tpu_loop.hlo").read_text()


def test_a_program_for_a_tpu():
  found = hlo.traffic(TPU)
  size = 16 * 1024 * 4
  # The prefetch reads all once; the loop reads a row at each of its turns, and
  # a few bytes of counters.
  assert 2 * size <= found.memory <= 2 * size + 16 * 32
  assert found.collectives["all-reduce"] == size


def test_a_text_without_a_program_is_refused():
  with pytest.raises(ValueError, match="no ENTRY"):
    hlo.traffic("nothing")
