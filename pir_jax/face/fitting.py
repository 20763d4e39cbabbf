"""Fits the head model to the landmarks of a whole clip.

One identity, one focal length and one small fixed offset a landmark for the
clip; a rotation, a translation and expressions for every frame. Damped Gauss-
Newton under full perspective; see `gauss_newton`. The shared unknowns are
estimated on some of the frames, then every frame is fitted with them fixed, a
piece at a time: memory does not grow with the clip.

t frames, l landmarks, i identity modes, e expression units.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from pir_jax.face import (
  fit_data,
  gauss_newton,
  landmark_squares,
  morphable,
  solver,
)
from pir_jax.types import AnyArray, InputError

# Frames that estimate the clip's shared unknowns, and pieces of them.
NUM_SHARED, NUM_PIECES = 128, 8
NUM_FOCAL = 64  # Of them, that estimate the focal length.
_PIECE = 512  # Frames fitted together afterwards,
_MARGIN = 32  # and those on either side that only constrain them.
_FIXED = 1e9  # The inverse variance of a fixed unknown.
# Frames are padded to a multiple, so few lengths are compiled.
_PADDING = 64
PIECE_PADDING = 192


class Fit(NamedTuple):
  """The head model's parameters over a clip.

  Attributes:
    identity: coefficients of the person, sigma units.
    expression: coefficients of each frame.
    pose: camera-to-world, OpenCV axes; the world is the head frame.
    focal: pixels.
    centre: of the image, pixels.
    offset: fixed displacement of each landmark on this person, head units.
    residual: RMS distance of the landmarks, pixels; NaN where there is no face.
    face_height: median height of the tracked landmarks, pixels.
    open_lids: of the open eye, see `fit_data`; None in older ones.
    noise: standard error of a landmark, as a share of face height; likewise.
  """

  identity: Float[np.ndarray, "i"]
  expression: Float[np.ndarray, "t e"]
  pose: Float[np.ndarray, "t 4 4"]
  focal: float
  centre: Float[np.ndarray, "2"]
  offset: Float[np.ndarray, "l 3"]
  residual: Float[np.ndarray, "t"]
  face_height: float
  open_lids: Float[np.ndarray, "p"] | None = None
  noise: float | None = None


@solver.one_thread()
def fit(
  landmarks: Float[np.ndarray, "t l c"],
  present: Bool[np.ndarray, "t"],
  size: tuple[int, int],
  model: morphable.FaceModel,
  *,
  identity: Float[AnyArray, "i"] | None = None,
  focal: float | None = None,
  fps: float = 25.0,
  shot: Int[np.ndarray, "t"] | None = None,
  config: fit_data.Config | None = None,
) -> Fit:
  """Fits the head model to a clip's landmarks.

  Args:
    landmarks: pixels (x, y and, if known, the tracker's z, which is used for
      initialisation only); NaN is allowed where not present.
    present: frames to fit. The others are filled from their neighbours.
    size: height and width of the picture, pixels.
    model: the head.
    identity: of a known person, kept as it is; None fits it.
    focal: pixels; None estimates it where it is observable, and else sets the
      median depth to 2.7.
    fps: frames a second; a lower rate allows larger changes between frames.
    shot: index of each frame's shot; there is no smoothness over a cut.
    config: weights.

  Raises:
    InputError: no frame has a face.
  """
  clip = _Clip(landmarks, present, shot, size, model, fps, config)
  frames = clip.choose()
  if identity is None:
    # Known from here on: whoever has it gets the same fit, to the bit.
    identity = np.asarray(clip.share(frames, None, focal).identity, np.float32)
  state = clip.share(frames, identity, focal)
  return clip.finish(frames, identity, state)


@solver.one_thread()
def fit_on(
  before: Fit,
  landmarks: Float[np.ndarray, "t l c"],
  present: Bool[np.ndarray, "t"],
  size: tuple[int, int],
  model: morphable.FaceModel,
  *,
  fps: float = 25.0,
  shot: Int[np.ndarray, "t"] | None = None,
  config: fit_data.Config | None = None,
) -> Fit:
  """Fits further frames of a clip, whose shared unknowns stay.

  Args:
    before: of the clip's first frames.
    landmarks: see `fit`, like all that follows.
    present: some of these at least.
    size: of the picture.
    model: the head.
    fps: frames a second.
    shot: of each frame.
    config: weights.

  Raises:
    InputError: no frame has a face.
  """
  clip = _Clip(landmarks, present, shot, size, model, fps, config, before)
  state = gauss_newton.State(
    *(np.zeros(shape, np.float32) for shape in ((0, 3, 3), (0, 3), (0, 0), 0)),
    offset=before.offset,
    focal=np.float32(before.focal / before.face_height),
  )
  return clip.finish(np.zeros(0, int), before.identity, state)


class _Clip:
  """The observations of a clip and their weights."""

  def __init__(
    self, landmarks, present, shot, size, model, fps, config, before=None
  ):
    config = config or fit_data.Config()
    present = present & fit_data.finite(landmarks)
    if not present.any():
      raise InputError(
        "No frame has a face to fit: use a video in which the face can be seen."
      )
    self.shot = np.zeros(len(landmarks), int) if shot is None else shot
    self.landmarks, self.present = landmarks, present
    self.model, self.config = model, config
    self.centre = np.array([size[1] / 2, size[0] / 2], np.float32)
    self.outward = fit_data.normals(model)
    self.stride = 25.0 / fps
    weight = np.full(landmarks.shape[1], config.landmark_weight)
    weight[morphable.LIPS] *= config.lip_weight
    weight[morphable.RIGID] *= config.rigid_weight
    self.weight = weight * model.landmark_valid
    weight = config.pair_weight * config.landmark_weight
    self.pair_weight = weight * model.landmark_valid[gauss_newton.PAIRS].all(1)
    if before is not None:
      self.height, self.noise = before.face_height, before.noise
      self.open_lids = before.open_lids
      return
    self.height = float(np.median(fit_data.heights(landmarks)[present]))
    self.open_lids = fit_data.open_lids(landmarks, present)
    self.noise = config.noise

  def choose(self) -> Int[np.ndarray, "n"]:
    """Selects frames for the shared unknowns: all, or pieces spread evenly."""
    known = np.flatnonzero(self.present)
    if len(self.present) <= NUM_SHARED:
      return np.arange(len(self.present))
    length = NUM_SHARED // NUM_PIECES
    if len(known) <= NUM_SHARED:
      return known
    starts = np.linspace(0, len(known) - length, NUM_PIECES).round().astype(int)
    return np.unique(known[starts[:, None] + np.arange(length)])

  def share(self, frames, identity, focal) -> gauss_newton.State:
    """Fits some frames together with the clip's shared unknowns."""
    self.noise = self.config.noise
    observations = self._gather(frames)
    bases = self._bases(identity)
    scaled = focal and focal / self.height
    state = solver.start(observations, bases, self.model.bounded, None, scaled)
    schedule = solver.Schedule(
      num_steps=self.config.num_steps,
      visibility=(0, 4, 8),
      offset=(3, 5, 7, 9),
      depth=(2, 4, 6) if focal is None else (),
      least=10,
    )
    state = self._descend(state, observations, bases, schedule)
    error = self._residual(state, bases, frames)[self.present[frames]]
    low, high = self.config.noise_range
    noise = self.config.noise_share * float(np.sqrt(np.mean(error**2)))
    self.noise = min(max(noise, low), high)
    again = solver.Schedule(
      num_steps=self.config.num_steps, visibility=(0,), offset=(1, 3), least=5
    )
    state = self._descend(state, observations, bases, again)
    zoom = 1.0 if focal is not None else self._zoom(state, observations, bases)
    if zoom != 1.0:
      zoomed = gauss_newton.zoomed(state, zoom)
      state = self._descend(zoomed, observations, bases, again)
    if scaled is not None:  # Rounding moves even a fixed unknown.
      state = state._replace(focal=np.float32(scaled))
    return state

  def _zoom(self, state, observations, bases) -> float:
    """Estimates the focal length's factor; 1 where it is not observable.

    Uses some of the frames without smoothness: perspective shows in the whole
    range of motion, not from one frame to the next.
    """
    config = self.config
    stride = -(-len(observations.points) // NUM_FOCAL)
    observations = solver.Observations(*(x[::stride] for x in observations))
    observations = observations._replace(
      link=np.zeros(len(observations.points) - 1, bool)
    )
    if not observations.known.any():
      return 1.0
    state = state._replace(
      rotation=np.asarray(state.rotation)[::stride],
      translation=np.asarray(state.translation)[::stride],
      expression=np.asarray(state.expression)[::stride],
    )
    data, priors = self._problem(observations)
    priors = priors._replace(focal=np.float32(0.0))
    visible = fit_data.visibility(state, bases, self.outward)
    data = data._replace(weight=np.asarray(data.weight) * visible)
    variance = gauss_newton.focal_variance(state, data, bases, priors)
    if not 0 < float(variance) < config.focal_error**2:
      return 1.0
    schedule = solver.Schedule(
      num_steps=config.num_steps, offset=(8, 10), least=11
    )
    # The offsets compensated for the wrong distance: estimate them again.
    start = state._replace(offset=np.zeros_like(np.asarray(state.offset)))
    freed = solver.descend(
      start, data, bases, priors, self.outward, schedule, config.tolerance
    )
    costs = [
      float(gauss_newton.cost(s, data, bases, priors)) for s in (state, freed)
    ]
    depth = np.median(np.asarray(freed.translation)[observations.known, 2])
    low, high = config.depth_range
    gained = 1 - costs[1] / costs[0] > config.focal_gain
    plausible = gained and low < depth < high
    return float(freed.focal) / float(state.focal) if plausible else 1.0

  def piece(self, frames, identity, shared) -> gauss_newton.State:
    """Fits some frames with the shared unknowns fixed."""
    observations = self._gather(frames, PIECE_PADDING)
    bases = self._bases(identity)
    state = solver.start(
      observations, bases, self.model.bounded, shared.offset, shared.focal
    )
    schedule = solver.Schedule(
      num_steps=self.config.num_steps, visibility=(0, 4), least=5
    )
    return self._descend(state, observations, bases, schedule)

  def _gather(self, frames, multiple=_PADDING) -> solver.Observations:
    count = -(-len(frames) // multiple) * multiple
    observed, known, link = fit_data.gather(
      self.landmarks, self.present, self.shot, frames, count
    )
    points = (observed[..., :2] - self.centre) / self.height
    points = fit_data.close_lids(points, self.open_lids)
    depths = observed[..., 2:] / self.height
    return solver.Observations(points, depths, known, link)

  def _problem(self, observations):
    scale = self.noise**-2
    data = fit_data.problem(
      observations.points,
      observations.known,
      observations.link,
      scale * self.weight,
      scale * self.pair_weight,
    )
    return data, self._priors(int(observations.known.sum()))

  def _descend(self, state, observations, bases, schedule):
    data, priors = self._problem(observations)
    tolerance = self.config.tolerance
    return solver.descend(
      state, data, bases, priors, self.outward, schedule, tolerance
    )

  def _bases(self, identity):
    """Returns the head at the landmarks; a fixed identity has no modes."""
    model = self.model
    mean, modes = model.landmark_mean, model.landmark_identity
    if identity is not None:
      mean = mean + np.tensordot(np.asarray(identity), modes, 1)
      modes = modes[:0]
    return landmark_squares.bases(mean, modes, model.landmark_expression)

  def _priors(self, num_known: int) -> gauss_newton.Priors:
    config = self.config
    ratio = self.noise / config.noise
    num_units = len(self.model.expression_names)
    expression = np.full(num_units, config.expression_sigma**-2)
    # No landmark observes the gaze or the tongue.
    names = self.model.expression_names
    hidden = [n.startswith(("eyeLook", "tongue")) for n in names]
    expression[np.array(hidden)] = 1e4
    bound = config.bound_sigma**-2
    change = config.expression_step
    if not self.model.bounded:
      # Standard deviations: twice a blendshape's, which has half its range.
      expression, bound, change = expression / 4, 0.0, 2 * change
    step = np.concatenate(
      [
        np.full(3, config.rotation_step**-2),
        np.full(3, config.translation_step**-2),
        np.full(num_units, change**-2),
      ]
    )
    # Float32 is enough: every block is well conditioned by its prior.
    return gauss_newton.Priors(
      *(
        np.asarray(value, np.float32)
        for value in (
          ratio**2 * config.identity_weight * num_known,
          expression,
          bound,
          step / self.stride**2,
          config.huber,
          num_known * (ratio * config.offset_sigma) ** -2,
          _FIXED,
        )
      )
    )

  def finish(self, frames, identity, state) -> Fit:
    """Fits every frame with the person's identity."""
    num_frames = len(self.present)
    state = state._replace(identity=np.zeros(0, np.float32))
    rotation = np.empty((num_frames, 3, 3))
    translation = np.empty((num_frames, 3))
    expression = np.empty((num_frames, len(self.model.expression_names)))
    residual = np.empty(num_frames)
    if len(frames) == num_frames:
      pieces = [(state, frames, slice(0, num_frames))]
    else:
      pieces = self._pieces(identity, state)
    for part, covered, inner in pieces:
      error = self._residual(part, self._bases(identity), covered)
      keep = covered[inner]
      rotation[keep] = np.asarray(part.rotation)[inner]
      translation[keep] = np.asarray(part.translation)[inner]
      expression[keep] = np.asarray(part.expression)[inner]
      residual[keep] = error[inner] * self.height
    if self.model.bounded:
      expression = np.clip(expression, 0, 1)
    pose = np.tile(np.eye(4), (num_frames, 1, 1))
    pose[:, :3, :3] = rotation.swapaxes(1, 2)
    pose[:, :3, 3] = -np.einsum("tcd,tc->td", rotation, translation)
    return Fit(
      identity=np.asarray(identity, np.float32),
      expression=expression.astype(np.float32),
      pose=pose.astype(np.float32),
      focal=float(state.focal) * self.height,
      centre=self.centre,
      offset=np.asarray(state.offset),
      residual=np.where(self.present, residual, np.nan).astype(np.float32),
      face_height=self.height,
      open_lids=self.open_lids,
      noise=self.noise,
    )

  def _pieces(self, identity, shared):
    """Yields (state, frames, the slice of them without margins)."""
    num_frames = len(self.present)
    for start in range(0, num_frames, _PIECE):
      stop = min(start + _PIECE, num_frames)
      low, high = max(0, start - _MARGIN), min(num_frames, stop + _MARGIN)
      frames = np.arange(low, high)
      state = self.piece(frames, identity, shared)
      yield state, frames, slice(start - low, stop - low)

  def _residual(self, state, bases, frames):
    """Computes the landmarks' RMS error, in units of face height."""
    observed = np.asarray(self.landmarks[frames])[..., :2]
    points = np.asarray(gauss_newton.project(state, bases))[: len(frames)]
    error = points - (observed - self.centre) / self.height
    return np.sqrt(np.mean(np.sum(error**2, -1), -1))
