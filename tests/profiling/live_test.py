"""Whole reenactments are timed, and live speech is followed."""

import re

import pytest

from pir_jax.profiling import live
from tests.small_experiments import small


@pytest.mark.slow
def test_a_person_of_random_weights_is_timed(tmp_path):
  experiments = map(small, ("expression", "triplane", "inpainting"))
  source = live.random_source(*experiments, tmp_path, side=128)
  lines = list(live.measure(source, 0.4, 2.0, 1))
  assert re.match(
    r"0\.4 s of speech to a file: [\d.]+ frames a second", lines[0]
  )
  names = [line[:30].strip() for line in lines[2:-3]]
  assert names == [
    "speech",
    "decode",
    "masks and crops",
    "inpaint",
    "composite",
    "encode",
  ]
  late = re.search(
    r"median (\d+), 95 % (\d+), 99 % (\d+), most (\d+)", lines[-2]
  )
  values = [int(value) for value in late.groups()]
  # No frame is there before the sound that it waits for.
  assert values == sorted(values) and values[0] >= 200
  assert re.match(
    r"memory .+ at a tenth of that time, .+ at its end", lines[-1]
  )
