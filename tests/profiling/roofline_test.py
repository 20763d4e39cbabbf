"""The model of a step's time: limits that a person can work out."""

import pytest

from pir_jax.profiling import hlo, roofline
from pir_jax.runtime import chips
from pir_jax.types import InputError


def work(flops=0.0, memory=0.0, **collectives):
  moved = dict.fromkeys(hlo.COLLECTIVES, 0.0)
  moved |= {
    name.replace("_", "-"): value for name, value in collectives.items()
  }
  return roofline.Work(flops, hlo.Traffic(memory, moved))


POD = roofline.slice_of("v5e:16x16", "TPU v5 lite")


def test_a_second_at_the_peak_is_a_second():
  chip = POD.chip
  found = roofline.estimate(work(chip.peak_flops, chip.hbm_bandwidth / 2), POD)
  assert found.seconds == found.compute == 1.0
  assert found.memory == 0.5
  assert found.efficiency == 1.0


def test_messages_come_on_top_and_cost_efficiency():
  # Both axes closed: four links of a chip.
  assert POD.bandwidth == 4 * POD.chip.link_bandwidth
  found = roofline.estimate(
    work(POD.chip.peak_flops, all_reduce=POD.bandwidth / 2), POD
  )
  # Twice past the links: reduce-scatter and all-gather.
  assert found.exchange == 1.0
  assert found.seconds == 2.0
  assert found.efficiency == 0.5
  gathered = roofline.estimate(work(1.0, all_gather=POD.bandwidth), POD)
  assert gathered.exchange == 1.0


@pytest.mark.parametrize(
  ("name", "kind", "links"),
  [
    ("v5e:4x4", "TPU v5 lite", 2),  # Lines both: not the whole pod's side.
    ("v5e:16x16", "TPU v5 lite", 4),
    ("v5e:1x1", "TPU v5 lite", 0),
    ("v5e:8x16", "TPU v5 lite", 3),
    ("v6e:16x16", "TPU v6 lite", 4),
    ("v5p:8x8x8", "TPU v5", 6),
    ("v5p:2x2x1", "TPU v5", 2),
  ],
)
def test_links_of_a_chip(name, kind, links):
  where = roofline.slice_of(name, kind)
  assert where.bandwidth == links * where.chip.link_bandwidth


def test_one_chip_exchanges_nothing():
  alone = roofline.slice_of("v5e:1x1", "TPU v5 lite")
  assert roofline.estimate(work(1e12, all_reduce=1e9), alone).exchange == 0.0


def test_a_step_that_is_taken_now_and_then_counts_its_share():
  both = work(4.0, 8.0, all_reduce=2.0).plus(
    work(8.0, 4.0, all_gather=4.0), 0.25
  )
  assert both == work(6.0, 9.0, all_reduce=2.0, all_gather=1.0)


@pytest.mark.parametrize(
  ("kind", "name"),
  [
    ("TPU v5 lite", "TPU v5e"),
    ("TPU v5", "TPU v5p"),
    ("TPU v5p", "TPU v5p"),
    ("TPU v6 lite", "TPU v6e"),
    ("NVIDIA H200", "H200"),
    ("NVIDIA A100-SXM4-80GB", "A100 80 GB"),
    ("NVIDIA A100-SXM4-40GB", "A100 40 GB"),
  ],
)
def test_chips_are_known_by_what_jax_calls_them(kind, name):
  assert chips.find(kind).name == name


def test_what_is_not_known_is_not_guessed():
  assert chips.find("cpu") is None
  with pytest.raises(InputError, match="not known"):
    roofline.slice_of("h200:8", "NVIDIA H200")
  with pytest.raises(InputError, match="no topology"):
    roofline.slice_of("v5e", "TPU v5 lite")
