"""Initialises a fit and minimises its cost by Levenberg-Marquardt.

Between the steps of `gauss_newton`, what is not one of its unknowns is updated:
visibility, offsets, and the focal length with all depths.

t frames, l landmarks, c 2 or 3 axes.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

# Loaded at once, so that it can be limited.
import scipy.linalg.cython_lapack  # noqa: F401
import threadpoolctl
from jaxtyping import Bool, Float

from pir_jax.face import fit_data, gauss_newton

# The default distance of the camera, head units: see `morphable`.
DEPTH = 2.7
_STUCK = 1e4  # Damping at which a step is negligible.


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
  """Keeps LAPACK, which XLA takes from SciPy, to one thread.

  A step solves a small system a frame. More threads gain nothing there, and
  wait for each other: beside one busy process a fit took 15 times as long.
  """
  with threadpoolctl.threadpool_limits(1, user_api="blas"):
    yield


class Observations(NamedTuple):
  """Tracked landmarks of some frames, padded, in units of face height.

  Attributes:
    points: relative to the image's centre.
    depths: the tracker's z, if there is one.
    known: whether the frame has a face.
    link: whether each frame constrains the next one.
  """

  points: Float[np.ndarray, "t l 2"]
  depths: Float[np.ndarray, "t l z"]
  known: Bool[np.ndarray, "t"]
  link: Bool[np.ndarray, "n"]


@dataclasses.dataclass(kw_only=True, slots=True)
class Schedule:
  """The steps before which visibility, offsets and depth are updated.

  Attributes:
    num_steps: most steps.
    visibility, offset, depth: indices of steps, counted from 0.
    least: fewest steps.
  """

  num_steps: int
  visibility: tuple[int, ...] = ()
  offset: tuple[int, ...] = ()
  depth: tuple[int, ...] = ()
  least: int


def start(
  observations: Observations, bases, bounded, offset, focal
) -> gauss_newton.State:
  """Initialises poses by Procrustes with the tracker's z, else frontal."""
  points, depths, known, _ = observations
  num_frames = len(points)
  neutral = np.asarray(bases.mean)
  if offset is not None:
    neutral = neutral + np.asarray(offset)
  shape = neutral - neutral.mean(0)
  if depths.shape[-1]:
    cloud = np.concatenate([points, depths], -1)
    cloud -= cloud.mean(1, keepdims=True)
    u, _, vt = np.linalg.svd(np.einsum("tlc,ld->tcd", cloud, shape))
    sign = np.linalg.det(u @ vt)
    u[..., -1] *= sign[:, None]
    rotation = u @ vt
  else:
    facing = np.diag([1.0, -1.0, -1.0])
    rotation = np.broadcast_to(facing, (num_frames, 3, 3))
  turned = np.einsum("tcd,ld->tlc", rotation, shape)[..., :2]
  flat = points - points.mean(1, keepdims=True)
  scale = (flat * turned).sum((1, 2)) / (turned**2).sum((1, 2))
  if focal is None:
    focal = DEPTH * np.median(scale[known])
  depth = focal / scale
  middle = np.concatenate(
    [points.mean(1) * (depth / focal)[:, None], depth[:, None]], -1
  )
  translation = middle - np.einsum("tcd,d->tc", rotation, neutral.mean(0))
  arrays = (
    rotation,
    translation,
    np.full((num_frames, len(bases.expression)), 0.02 * bounded),
    np.zeros(len(bases.identity)),
    np.zeros_like(neutral) if offset is None else offset,
    focal,
  )
  arrays = [np.asarray(array, np.float32) for array in arrays]
  return gauss_newton.State(*jax.device_put(arrays))


def descend(state, data, bases, priors, outward, schedule, tolerance):
  """Runs Levenberg-Marquardt, with the schedule's updates in between."""
  damping, cost, weight = 1e-2, np.inf, np.asarray(data.weight)
  for index in range(schedule.num_steps):
    if index in schedule.visibility:
      visible = fit_data.visibility(state, bases, outward)
      data, cost = data._replace(weight=weight * visible), np.inf
    if index in schedule.offset:
      state = gauss_newton.update_offset(state, data, bases, priors)
      cost = np.inf
    if index in schedule.depth:
      state, cost = _move_to_depth(state, data), np.inf
    state_cost, trial, trial_cost = gauss_newton.step(
      state, data, bases, priors, np.float32(damping)
    )
    cost, trial_cost = float(state_cost), float(trial_cost)
    if trial_cost < cost:
      state, damping = trial, max(damping / 4, 1e-6)
    else:
      damping = min(8 * damping, 8 * _STUCK)
    # At the minimum, rounding decides which of the two is less.
    done = abs(cost - trial_cost) < tolerance * cost or damping > _STUCK
    if done and index >= schedule.least:
      break
  return state


def _move_to_depth(
  state: gauss_newton.State, data: gauss_newton.Data
) -> gauss_newton.State:
  """Scales focal length and depths together to a median depth of `DEPTH`."""
  known = np.asarray(data.weight).sum(1) > 0
  translation = np.array(state.translation)
  ratio = DEPTH / np.median(translation[known, 2])
  translation[:, 2] *= ratio
  focal = np.asarray(state.focal * ratio)
  return state._replace(focal=focal, translation=translation)
