"""Heads of other people's topology, from which published layouts are written.

The published models are not ours to keep, so the open head stands for them:
another person, cropped, its triangles cut anew, its vertices shuffled.
"""

import dataclasses

import numpy as np
import pytest

from pir_jax.face import morphable
from pir_jax.pretrained.heads import landmarks


@dataclasses.dataclass
class Foreign:
  """A head in head units, its landmarks known.

  Attributes:
    mean, identity, expression, triangles: the mesh and its bases.
    points: where the landmarks lie on the mean.
    places: 68 vertices near Multi-PIE's points.
  """

  mean: np.ndarray
  identity: np.ndarray
  expression: np.ndarray
  triangles: np.ndarray
  points: np.ndarray
  places: np.ndarray

  def misses(self, model) -> np.ndarray:
    """Distances of an imported model's landmarks from the true ones, mm."""
    gap = model.landmark_mean - self.points
    gap = gap - np.median(gap, axis=0)
    return np.linalg.norm(gap, axis=1) * 1000 / 2.7


def make_foreign(num_identity=80) -> Foreign:
  """Another head than the open one."""
  head = morphable.load()
  random = np.random.default_rng(3)
  person = random.normal(0, 0.8, 80)
  chin = head.landmark_mean[152, 1]

  def shaped(mean, modes):
    mean = mean + np.tensordot(person, modes, 1)
    # A bend that no mode of the open head knows.
    return mean + 0.004 * np.sin(9 * mean[..., [1, 2, 0]] + [0, 1, 2])

  mean = shaped(head.mean, head.identity_basis)
  bases = (head.identity_basis[:num_identity], head.expression_basis)
  front = (mean[:, 2] > 0.02) & (mean[:, 1] > chin - 0.08)
  triangles = head.triangles[front[head.triangles].all(1)]
  used, triangles = np.unique(triangles, return_inverse=True)
  triangles = triangles.reshape(-1, 3)
  arrays = [mean[used], *(basis[:, used] for basis in bases)]
  order = random.permutation(arrays[0].shape[0])
  arrays = [a[..., order, :] for a in arrays]
  triangles = np.argsort(order)[triangles]
  points = shaped(head.landmark_mean, head.landmark_identity)
  marked = np.concatenate([np.repeat(152, 17), landmarks.INNER_51])
  gaps = np.linalg.norm(points[marked][:, None] - arrays[0], axis=-1)
  return Foreign(*arrays, triangles, points, gaps.argmin(1))


@pytest.fixture(scope="session")
def foreign() -> Foreign:
  return make_foreign()


@pytest.fixture(scope="session")
def small_foreign() -> Foreign:
  """With four identity modes."""
  return make_foreign(4)
