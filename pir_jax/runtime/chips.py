"""Peak performance of accelerators, by their makers' data sheets.

TPUs: Google Cloud's system architecture pages and "How to Scale Your Model"
(links, one way). GPUs: NVIDIA's data sheets, dense bfloat16 without sparsity.
"""

from typing import NamedTuple


class Chip(NamedTuple):
  """One device as JAX counts them.

  Attributes:
    name: for people.
    peak_flops: bfloat16 products and sums in a second, float32 accumulation.
    hbm_bytes: memory; a little less is left to programs.
    hbm_bandwidth: bytes a second between memory and chip.
    link_bandwidth: bytes a second over one inter-chip link, one way; 0 where
      devices are not joined as a torus.
    torus_axes: dimensions of that torus; two links each.
    pod: the largest torus; an axis shorter than the pod's is a line, unless the
      chip's torus closes at any multiple of four (3D).
  """

  name: str
  peak_flops: float
  hbm_bytes: int
  hbm_bandwidth: float
  link_bandwidth: float = 0.0
  torus_axes: int = 0
  pod: tuple[int, ...] = ()


_GIB = 2**30

# By the prefix of jax's device_kind; the first match counts.
CHIPS = {
  "TPU v4": Chip("TPU v4", 275e12, 32 * _GIB, 1.23e12, 4.5e10, 3),
  "TPU v5 lite": Chip(
    "TPU v5e", 197e12, 16 * _GIB, 8.1e11, 4.5e10, 2, (16, 16)
  ),
  "TPU v5e": Chip("TPU v5e", 197e12, 16 * _GIB, 8.1e11, 4.5e10, 2, (16, 16)),
  "TPU v5": Chip("TPU v5p", 459e12, 95 * _GIB, 2.765e12, 9e10, 3),
  "TPU v6 lite": Chip("TPU v6e", 918e12, 32 * _GIB, 1.64e12, 9e10, 2, (16, 16)),
  "TPU v6e": Chip("TPU v6e", 918e12, 32 * _GIB, 1.64e12, 9e10, 2, (16, 16)),
  "NVIDIA A100-SXM4-40GB": Chip("A100 40 GB", 312e12, 40 * _GIB, 1.555e12),
  "NVIDIA A100": Chip("A100 80 GB", 312e12, 80 * _GIB, 2.039e12),
  "NVIDIA H100 80GB HBM3": Chip("H100 SXM", 989e12, 80 * _GIB, 3.35e12),
  "NVIDIA H100 PCIe": Chip("H100 PCIe", 756e12, 80 * _GIB, 2.0e12),
  "NVIDIA H200": Chip("H200", 989e12, 141 * 10**9, 4.8e12),
  "NVIDIA L4": Chip("L4", 121e12, 24 * _GIB, 3.0e11),
}


def find(device_kind: str) -> Chip | None:
  """Returns the chip of a `jax.Device.device_kind`; None if unknown."""
  return next(
    (chip for kind, chip in CHIPS.items() if device_kind.startswith(kind)),
    None,
  )
