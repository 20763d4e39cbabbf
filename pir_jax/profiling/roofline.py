"""Estimates the seconds of a step on a slice of chips by a roofline model.

The model: a chip computes at its peak while it reads and writes its memory at
full bandwidth, so the longer of the two counts; collectives run at full link
bandwidth over all axes of the torus, and nothing hides them. Real programs
attain neither peak, and hide some of the messages: it is an estimate to compare
machines by, not a promise.
"""

import re
from typing import NamedTuple

from pir_jax.profiling import hlo
from pir_jax.runtime import chips
from pir_jax.types import InputError

# Times that an array passes a chip's links, in rings over many chips: an
# all-reduce is a reduce-scatter and an all-gather.
_PASSES = {
  "all-reduce": 2.0,
  "all-gather": 1.0,
  "reduce-scatter": 1.0,
  "all-to-all": 1.0,
  "collective-permute": 1.0,
}


class Slice(NamedTuple):
  """Chips joined as a torus, such as v5e:16x16."""

  name: str
  chip: chips.Chip
  sides: tuple[int, ...]

  @property
  def bandwidth(self) -> float:
    """Returns bytes a second out of a chip over all its links, one way.

    An axis that is closed to a ring goes both ways round; a line is half as
    quick.
    """
    links = 0
    for i, side in enumerate(self.sides):
      if side > 1:
        links += 2 if self._closed(i) else 1
    return links * self.chip.link_bandwidth

  def _closed(self, axis: int) -> bool:
    if self.chip.pod:
      return self.sides[axis] == self.chip.pod[axis]
    return self.sides[axis] % 4 == 0  # Cubes of 4x4x4 behind optical switches.


class Work(NamedTuple):
  """What a step does on each chip.

  Attributes:
    flops: products and sums.
    traffic: bytes it moves.
  """

  flops: float
  traffic: hlo.Traffic

  def plus(self, other: "Work", share: float) -> "Work":
    """Returns the sum with a share of another step, which runs that often."""
    mine, theirs = self.traffic, other.traffic
    return Work(
      self.flops + share * other.flops,
      hlo.Traffic(
        mine.memory + share * theirs.memory,
        {
          kind: value + share * theirs.collectives[kind]
          for kind, value in mine.collectives.items()
        },
      ),
    )


class Estimate(NamedTuple):
  """Seconds of a step, by the model at the head of this file.

  Attributes:
    compute: at the peak.
    memory: at the memory's full bandwidth.
    exchange: of the collectives.
  """

  compute: float
  memory: float
  exchange: float

  @property
  def alone(self) -> float:
    """Returns the seconds of a step without other chips."""
    return max(self.compute, self.memory)

  @property
  def seconds(self) -> float:
    """Returns the seconds of the step."""
    return self.alone + self.exchange

  @property
  def efficiency(self) -> float:
    """Returns the share of a chip's own speed left among the others."""
    return self.alone / self.seconds if self.seconds else 1.0


def estimate(work: Work, where: Slice) -> Estimate:
  """Estimates the seconds of some work on each chip of a slice."""
  exchanged = sum(
    _PASSES[kind] * value for kind, value in work.traffic.collectives.items()
  )
  return Estimate(
    work.flops / where.chip.peak_flops,
    work.traffic.memory / where.chip.hbm_bandwidth,
    exchanged / where.bandwidth if where.bandwidth else 0.0,
  )


def slice_of(name: str, device_kind: str) -> Slice:
  """Returns the slice called `name`, of devices of a kind.

  Raises:
    InputError: the name holds no sides, or the chip's figures are not known.
  """
  chip = chips.find(device_kind)
  match = re.fullmatch(r"[^:]+:(\d+(?:x\d+)*)", name)
  if not match:
    raise InputError(
      f"{name!r} is no topology: write chip and sides, such as v5e:16x16."
    )
  if chip is None or not chip.link_bandwidth:
    raise InputError(
      f"the speed of a {device_kind} is not known: choose a TPU of v4, v5e, "
      "v5p or v6e."
    )
  return Slice(name, chip, tuple(int(side) for side in match[1].split("x")))
