"""Training steps for machines that are not here."""

import importlib.util

import jax
import pytest

from pir_jax.models import faceformer, triplane_generator
from pir_jax.profiling import roofline, tpu
from pir_jax.runs.experiment import Data, Experiment
from pir_jax.runtime import chips, loop
from pir_jax.stages import expression
from pir_jax.types import InputError

BYTES = 2**20
CHIP = chips.Chip("eight", 1e9, BYTES, 1e6, 1e5, 1)


def experiment(**options):
  return Experiment(
    stage=expression.Config(
      model=faceformer.Config(
        width=8, ffn=8, num_heads=2, context=4, dropout=0.0
      ),
      mode="teacher_forced",
      encoder="whisper",
      **options,
    ),
    data=Data(batch_size=8, num_frames=4),
    loop=loop.Config(num_steps=10),
  )


@pytest.fixture
def eight(monkeypatch):
  """A slice of the eight simulated devices, whose compiler has no levels."""
  monkeypatch.setitem(tpu.EFFORTS, "O1", None)
  where = roofline.Slice("eight:8", CHIP, (8,))
  monkeypatch.setattr(tpu, "find_devices", lambda name: jax.devices())
  monkeypatch.setattr(roofline, "slice_of", lambda name, kind: where)


@pytest.mark.slow
def test_a_line_holds_what_the_compiler_and_the_model_say(eight):
  made = tpu.forecast(experiment(), triplane_generator.Config(), "eight:8", 2)
  assert made.fits and made.batch == 16
  (header, row) = tpu.HEADER.splitlines()[-1], tpu.row(made)
  assert len(header) == len(row)
  found = dict(zip(header.split(), row.split(), strict=False))
  assert found["slice"] == "eight:8" and found["batch"] == "16"
  assert "yes" in row
  # Nothing of the work is lost: gradients of all that is trained are summed
  # over the devices.
  assert made.work.flops > 0
  assert made.work.traffic.collectives["all-reduce"] > 0
  expected = roofline.estimate(made.work, made.where)
  assert f"{1e3 * expected.seconds:.1f}" in row.split()


@pytest.mark.slow
def test_without_a_size_the_batch_is_the_experiments_own(eight):
  made = tpu.forecast(experiment(), triplane_generator.Config(), "eight:8")
  assert made.batch == 8


def test_what_does_not_fit_is_a_line_too(eight, monkeypatch):
  def refuse(lowered, options):
    raise tpu.memory.TooLarge("17.0G of 16.0G")

  monkeypatch.setattr(tpu.memory, "compile_lowered", refuse)
  made = tpu.forecast(experiment(), triplane_generator.Config(), "eight:8")
  assert not made.fits
  assert " no " in tpu.row(made) and "17.0G of 16.0G" in tpu.row(made)


@pytest.mark.slow
def test_a_program_that_cannot_be_read_still_has_its_memory(eight, monkeypatch):
  def unreadable(compiled):
    raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure")

  monkeypatch.setattr(jax.stages.Compiled, "as_text", unreadable)
  made = tpu.forecast(experiment(), triplane_generator.Config(), "eight:8")
  assert made.fits and made.work is None
  assert " yes " in tpu.row(made) and "no estimate" in tpu.row(made)


def test_a_batch_that_is_not_shared_out_is_refused(eight):
  odd = experiment()
  odd.data.batch_size = 12
  with pytest.raises(InputError, match="multiple of the 8 devices"):
    tpu.forecast(odd, triplane_generator.Config(), "eight:8")


def test_without_the_compiler_one_sentence_says_what_to_install(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(InputError, match="tpu-aot"):
    tpu.find_devices("v5e:4x4")


@pytest.mark.slow
def test_a_real_slice_is_compiled_for():
  pytest.importorskip("libtpu", reason="the extra tpu-aot is not installed")
  made = tpu.forecast(experiment(), triplane_generator.Config(), "v5e:4x4", 2)
  assert made.fits and made.batch == 32
  assert made.where.chip.name == "TPU v5e"
  assert made.footprint.peak < made.where.chip.hbm_bytes
  with pytest.raises(InputError, match="no slice of TPUs"):
    tpu.find_devices("v99:4x4")
