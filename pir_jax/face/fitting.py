"""Fits the head model to the landmarks of a whole clip at once.

One identity, one focal length and one small fixed offset a landmark for the
clip; a rotation, a translation and expressions for every frame. Damped Gauss-
Newton under full perspective; see `least_squares`.

t frames, l landmarks, i identity modes, e expression units.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from pir_jax.face import least_squares, morphable
from pir_jax.types import AnyArray, InputError

# The default distance of the camera, head units: see `morphable`.
DEPTH = 2.7

# fmt: off
_OVAL = np.array([
  10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378,
  400, 377, 152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21,
  54, 103, 67, 109])
# fmt: on
# No landmark sees the gaze or the tongue.
_UNSEEN = np.array(
  [n.startswith(("eyeLook", "tongue")) for n in morphable.EXPRESSION_NAMES]
)
_PADDING = 64  # Frames are padded to a multiple, so few lengths are compiled.


@dataclasses.dataclass(kw_only=True, slots=True)
class Config:
  """How much each part of the fit is trusted; all of it is our choice.

  Attributes:
    num_steps: most Gauss-Newton steps.
    tolerance: relative decrease of the cost at which to stop.
    noise: standard error of a landmark, as a share of face height.
    landmark_weight: of a point's squared error. Points of one frame err
      together, so a point counts for less than one.
    lip_weight: of a point on the lips, relative to others.
    oval_weight: of a point on the face's outline, which slides over the skin
      as the head turns.
    rigid_weight: of a point that speech does not move. Else a jaw that the
      model opens too little is made up for by nodding, and the pose, which the
      inpainting network sees, tells how far the mouth is open.
    pair_weight: of the difference of two opposite points of lips or eyelids.
    huber: errors above this many standard errors count linearly.
    identity_sigma: expected size of identity coefficients.
    identity_weight: of their ridge, relative to one frame's landmarks, times
      the number of frames: a model's mistake does not average out over frames.
    expression_sigma: expected size of expression coefficients.
    bound_sigma: how far coefficients may stray out of [0, 1].
    offset_sigma: of a landmark's fixed offset, head units.
    expression_step: expected change of a coefficient in 1/25 s.
    rotation_step: of the rotation, radians.
    translation_step: of the translation, head units.
  """

  num_steps: int = 24
  tolerance: float = 1e-4
  noise: float = 0.01
  landmark_weight: float = 0.05
  lip_weight: float = 2.0
  oval_weight: float = 0.3
  rigid_weight: float = 30.0
  pair_weight: float = 10.0
  huber: float = 2.0
  identity_sigma: float = 1.0
  identity_weight: float = 0.3
  expression_sigma: float = 0.5
  bound_sigma: float = 0.03
  offset_sigma: float = 0.015
  expression_step: float = 0.2
  rotation_step: float = 0.015
  translation_step: float = 0.015


class Fit(NamedTuple):
  """A clip explained by the head model.

  Attributes:
    identity: coefficients of the person, sigma units.
    expression: coefficients of each frame.
    pose: camera-to-world, OpenCV axes; the world is the head frame.
    focal: pixels.
    centre: of the image, pixels.
    offset: fixed displacement of each landmark on this person, head units.
    residual: RMS distance of the landmarks, pixels; NaN where there is no face.
    face_height: median height of the tracked landmarks, pixels.
  """

  identity: Float[np.ndarray, "i"]
  expression: Float[np.ndarray, "t e"]
  pose: Float[np.ndarray, "t 4 4"]
  focal: float
  centre: Float[np.ndarray, "2"]
  offset: Float[np.ndarray, "l 3"]
  residual: Float[np.ndarray, "t"]
  face_height: float


def fit(
  landmarks: Float[np.ndarray, "t l c"],
  present: Bool[np.ndarray, "t"],
  size: tuple[int, int],
  model: morphable.FaceModel,
  *,
  identity: Float[AnyArray, "i"] | None = None,
  focal: float | None = None,
  fps: float = 25.0,
  config: Config | None = None,
) -> Fit:
  """Fits a clip.

  Args:
    landmarks: pixels (x, y and, if known, the tracker's z, which only serves
      to start); NaN is allowed where not present.
    present: frames to be explained. The others get what their neighbours
      suggest.
    size: height and width of the picture, pixels.
    model: the head.
    identity: of a known person, kept as it is; None fits it.
    focal: pixels; None chooses the one that puts the median depth at 2.7.
    fps: frames a second; fewer let more change from one to the next.
    config: weights.

  Returns:
    The fit; see `Fit`.

  Raises:
    InputError: no frame has a face.
  """
  config = config or Config()
  present = present & np.isfinite(landmarks).all((1, 2))
  if not present.any():
    raise InputError(
      "No frame has a face to fit: use a video in which the face can be seen."
    )
  height = float(np.median(np.ptp(landmarks[present][..., 1], axis=1)))
  centre = np.array([size[1] / 2, size[0] / 2], np.float32)
  data, depths = _prepare(landmarks, present, centre, height, model, config)
  bases = least_squares.Bases(
    *map(
      jnp.asarray,
      (model.landmark_mean, model.landmark_identity, model.landmark_expression),
    )
  )
  scaled = None if focal is None else focal / height
  state = _start(data.points, depths, present, bases, identity, scaled)
  priors = _priors(config, int(present.sum()), 25.0 / fps)
  state = _descend(
    state, data, bases, priors, identity is None, focal is None, config
  )
  return _finish(state, data, bases, present, centre, height)


def _prepare(landmarks, present, centre, height, model, config):
  """Scales, weighs and pads the observations; also the tracker's z."""
  num_frames = len(landmarks)
  padded = -num_frames % _PADDING
  points = (landmarks[..., :2] - centre) / height
  depths = landmarks[..., 2:] / height
  seen = np.flatnonzero(present)
  # Missing frames start from the nearest seen one; their weight is zero.
  places = np.arange(num_frames + padded)
  nearest = np.interp(places, seen, np.arange(len(seen))).round().astype(int)
  nearest = seen[nearest]
  points, depths = points[nearest], depths[nearest]
  weight = np.full(landmarks.shape[1], config.landmark_weight)
  weight[morphable.LIPS] *= config.lip_weight
  weight[_OVAL] *= config.oval_weight
  weight[morphable.RIGID] *= config.rigid_weight
  weight = weight * model.landmark_valid / config.noise**2
  known = np.pad(present, (0, padded)).astype(np.float32)
  pairs = np.full(
    len(least_squares.PAIRS), config.pair_weight * config.landmark_weight
  )
  pairs = pairs / config.noise**2
  pairs = pairs * model.landmark_valid[least_squares.PAIRS].all(1)
  data = least_squares.Data(
    *(
      jnp.asarray(array, jnp.float32)
      for array in (
        points,
        known[:, None] * weight,
        known[:, None] * pairs,
        np.arange(num_frames + padded) < num_frames,
      )
    )
  )
  return data, depths


def _priors(
  config: Config, num_seen: int, stride: float
) -> least_squares.Priors:
  expression = np.full(len(_UNSEEN), config.expression_sigma**-2)
  expression[_UNSEEN] = 1e4
  step = np.concatenate(
    [
      np.full(3, config.rotation_step**-2),
      np.full(3, config.translation_step**-2),
      np.full(len(_UNSEEN), config.expression_step**-2),
    ]
  )
  step /= stride**2
  # Float32 is enough: every block is well conditioned by its prior.
  return least_squares.Priors(
    *(
      jnp.asarray(value, jnp.float32)
      for value in (
        config.identity_weight * num_seen * config.identity_sigma**-2,
        expression,
        config.bound_sigma**-2,
        step,
        config.huber,
        num_seen * config.offset_sigma**-2,
      )
    )
  )


def _start(
  points, depths, present, bases, identity, focal
) -> least_squares.State:
  """Poses by Procrustes where the tracker gave z, else facing the camera."""
  num_frames = len(points)
  known = np.zeros(bases.identity.shape[0]) if identity is None else identity
  neutral = np.asarray(
    bases.mean + jnp.tensordot(jnp.asarray(known), bases.identity, 1)
  )
  shape = neutral - neutral.mean(0)
  facing = np.diag([1.0, -1.0, -1.0])
  points = np.asarray(points)
  if depths.shape[-1]:
    cloud = np.concatenate([points, depths], -1)
    cloud -= cloud.mean(1, keepdims=True)
    u, _, vt = np.linalg.svd(np.einsum("tlc,ld->tcd", cloud, shape))
    sign = np.linalg.det(u @ vt)
    u[..., -1] *= sign[:, None]
    rotation = u @ vt
  else:
    rotation = np.broadcast_to(facing, (num_frames, 3, 3))
  turned = np.einsum("tcd,ld->tlc", rotation, shape)
  flat = points - points.mean(1, keepdims=True)
  scale = (flat * turned[..., :2]).sum((1, 2)) / (turned[..., :2] ** 2).sum(
    (1, 2)
  )
  if focal is None:
    focal = DEPTH * np.median(scale[: len(present)][present])
  depth = focal / scale
  middle = np.concatenate(
    [points.mean(1) * (depth / focal)[:, None], depth[:, None]], -1
  )
  translation = middle - np.einsum("tcd,d->tc", rotation, neutral.mean(0))
  arrays = (
    rotation,
    translation,
    np.full((num_frames, bases.expression.shape[0]), 0.02),
    known,
    np.zeros_like(neutral),
    focal,
  )
  return least_squares.State(*(jnp.asarray(a, jnp.float32) for a in arrays))


def _descend(state, data, bases, priors, free_identity, free_focal, config):
  """Levenberg-Marquardt, with offsets and focal length moved in between."""
  damping, cost = 1e-2, np.inf
  for index in range(config.num_steps):
    if index in (3, 5, 7, 9):
      state = least_squares.update_offset(state, data, bases, priors)
      cost = np.inf
    if free_focal and index in (2, 4, 6):
      state, cost = _move_to_depth(state, data), np.inf
    state_cost, trial, trial_cost = least_squares.step(
      state, data, bases, priors, jnp.float32(damping), free_identity
    )
    cost, trial_cost = float(state_cost), float(trial_cost)
    if trial_cost < cost:
      done = cost - trial_cost < config.tolerance * cost and index > 9
      state, damping = trial, max(damping / 4, 1e-6)
      if done:
        break
    else:
      damping *= 8
  return state


def _move_to_depth(
  state: least_squares.State, data: least_squares.Data
) -> least_squares.State:
  """Scales focal length and depths together, so that the median is `DEPTH`."""
  seen = np.asarray(data.weight.sum(1) > 0)
  ratio = DEPTH / float(np.median(np.asarray(state.translation)[seen, 2]))
  translation = state.translation.at[:, 2].multiply(ratio)
  return state._replace(focal=state.focal * ratio, translation=translation)


def _finish(state, data, bases, present, centre, height) -> Fit:
  num_frames = len(present)
  error, _ = least_squares.errors_of(state, data, bases)
  residual = np.sqrt(np.mean(np.sum(np.asarray(error) ** 2, -1), -1)) * height
  residual = np.where(present, residual[:num_frames], np.nan)
  rotation = np.asarray(state.rotation, np.float64)[:num_frames]
  translation = np.asarray(state.translation, np.float64)[:num_frames]
  pose = np.tile(np.eye(4), (num_frames, 1, 1))
  pose[:, :3, :3] = rotation.swapaxes(1, 2)
  pose[:, :3, 3] = -np.einsum("tcd,tc->td", rotation, translation)
  return Fit(
    identity=np.asarray(state.identity),
    expression=np.asarray(state.expression)[:num_frames],
    pose=pose.astype(np.float32),
    focal=float(state.focal) * height,
    centre=centre,
    offset=np.asarray(state.offset),
    residual=residual.astype(np.float32),
    face_height=height,
  )
