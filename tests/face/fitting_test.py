"""The fit recovers what made the landmarks."""

import os

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pir_jax.face import fitting, morphable
from pir_jax.geometry import cameras
from pir_jax.metrics import lips
from pir_jax.types import InputError

SIZE = (512, 512)
FOCAL = 1500.0
# Of the identity modes: the laws hold for any number, and a step costs its
# square.
NUM_MODES = 20


@pytest.fixture(autouse=True, scope="module")
def quick():
  """A fit runs longer than it compiles, and most of it on frames of padding."""
  name = "jax_disable_most_optimizations"
  jax.config.update(name, False)
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(fitting, "PIECE_PADDING", 20)
    yield
  jax.config.update(name, os.environ[name.upper()] == "1")


@pytest.fixture(scope="module")
def model():
  head = morphable.load()
  return head._replace(
    identity_basis=head.identity_basis[:NUM_MODES],
    landmark_identity=head.landmark_identity[:NUM_MODES],
  )


@pytest.fixture(scope="module")
def clip(model):
  """A turning, talking, blinking head: landmarks and ground truth."""
  return _talk(model, 60)


def _talk(model, num_frames, focal=FOCAL, depth=2.7):
  rng = np.random.default_rng(0)
  time = np.arange(num_frames) / 25
  identity = (0.7 * rng.normal(size=NUM_MODES)).astype(np.float32)
  expression = np.zeros((num_frames, 52), np.float32)
  names = morphable.EXPRESSION_NAMES
  wave = np.sin(2 * np.pi * 3 * time)
  expression[:, names.index("jawOpen")] = 0.3 * np.clip(wave, 0, 1)
  for side in ("Left", "Right"):
    expression[15:18, names.index(f"eyeBlink{side}")] = 1.0
  turn = np.stack(
    [0.1 * np.sin(3 * time), 0.3 * np.sin(2 * time), 0.05 * time], -1
  ).astype(np.float32)
  rotation = np.asarray(cameras.rotation_from_axis_angle(jnp.asarray(turn)))
  rotation = rotation @ np.diag([1.0, -1.0, -1.0])
  shape = np.asarray(
    morphable.landmarks(
      model, np.broadcast_to(identity, (num_frames, NUM_MODES)), expression
    )
  )
  local = np.einsum("tcd,tld->tlc", rotation, shape) + [0.1, -0.1, depth]
  pixels = focal * local[..., :2] / local[..., 2:] + 256
  away = local[..., 2:] * focal / depth
  noisy = np.concatenate([pixels, away], -1)
  noisy[..., :2] += 0.5 * rng.normal(size=pixels.shape)
  return noisy.astype(np.float32), pixels, rotation, identity, expression


@pytest.fixture(scope="module")
def fitted(clip, model):
  present = np.ones(len(clip[0]), bool)
  return fitting.fit(clip[0], present, SIZE, model)


def _angles(fit, rotation):
  """Degrees between fitted and true rotations."""
  relative = fit.pose[:, :3, :3].swapaxes(1, 2) @ rotation.swapaxes(1, 2)
  cosine = (np.trace(relative, axis1=1, axis2=2) - 1) / 2
  return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def _pixels(fit, model, offset):
  shape = np.asarray(
    morphable.landmarks(
      model,
      np.broadcast_to(fit.identity, (len(fit.pose), NUM_MODES)),
      fit.expression,
    )
  )
  shape = shape + offset * fit.offset - fit.pose[:, None, :3, 3]
  local = shape @ fit.pose[:, :3, :3]
  return fit.focal * local[..., :2] / local[..., 2:] + fit.centre


def test_pose_and_lips_of_an_unknown_person_are_recovered(fitted, clip, model):
  # The noise of half a pixel, and the identity's prior.
  assert _angles(fitted, clip[2]).mean() < 0.5
  gaps = []
  for identity, expression in (
    (fitted.identity, fitted.expression),
    (clip[3], clip[4]),
  ):
    every = np.tile(identity, (len(expression), 1))
    points = morphable.landmarks(model, every, expression)
    gaps.append(lips.opening(np.asarray(points)))
  error = np.sqrt(np.mean((gaps[0] - gaps[1]) ** 2))
  assert error < 0.03 * np.ptp(gaps[1])


def test_further_frames_are_fitted_with_the_same_shared_unknowns(
  fitted, clip, model
):
  present = np.ones(len(clip[0]), bool)
  first = fitting.fit(
    clip[0][:40], present[:40], SIZE, model, identity=fitted.identity
  )
  later = fitting.fit_on(first, clip[0][20:], present[20:], SIZE, model)
  for name in ("focal", "face_height", "noise"):
    assert getattr(later, name) == pytest.approx(getattr(first, name))
  np.testing.assert_array_equal(later.offset, first.offset)
  assert _angles(later, clip[2][20:]).mean() < 0.5
  # Where both know the frames after, they agree.
  np.testing.assert_allclose(
    later.expression[5:12], first.expression[25:32], atol=0.05
  )
  with pytest.raises(InputError, match="No frame has a face"):
    fitting.fit_on(first, clip[0], ~present, SIZE, model)


def test_residual_is_the_noise(fitted):
  # 0.5 px in x and y: 0.71 px; the priors add a little.
  assert 0.5 < fitted.residual.mean() < 1.2


def test_median_depth_is_the_head_unit_s(fitted):
  distance = np.linalg.norm(fitted.pose[:, :3, 3], axis=1)
  assert np.median(distance) == pytest.approx(2.7, rel=0.05)


@pytest.mark.parametrize(
  ("upper", "lower", "least"), [(13, 14, 0.99), (159, 145, 0.9)]
)
def test_lips_and_eyelids_follow(fitted, clip, model, upper, lower, least):
  got = _pixels(fitted, model, 0)
  true = clip[1]
  gaps = [p[:, lower, 1] - p[:, upper, 1] for p in (got, true)]
  assert np.corrcoef(*gaps)[0, 1] > least
  closed = gaps[1] < np.percentile(gaps[1], 10)
  # Closed when closed: a hundredth of the face's height.
  error = np.abs(gaps[0] - gaps[1])[closed].max()
  assert error < 0.015 * fitted.face_height


def test_a_known_identity_is_kept_and_its_pose_recovered(clip, model):
  landmarks, _, rotation, identity, expression = clip
  present = np.ones(len(landmarks), bool)
  present[10:20] = False
  landmarks = landmarks.copy()
  landmarks[10:20] = np.nan
  fit = fitting.fit(
    landmarks, present, SIZE, model, identity=identity, focal=FOCAL
  )
  np.testing.assert_array_equal(fit.identity, identity)
  assert fit.focal == pytest.approx(FOCAL)
  assert _angles(fit, rotation)[present].max() < 0.5
  assert np.isnan(fit.residual[10:20]).all()
  chex.assert_tree_all_finite((fit.pose, fit.expression))
  jaw = morphable.EXPRESSION_NAMES.index("jawOpen")
  # Other units share in opening the mouth, so the strength is not exact.
  error = np.abs(fit.expression - expression)[present, jaw]
  assert error.max() < 0.08
  assert fit.expression.min() >= 0 and fit.expression.max() <= 1


def test_a_clip_without_a_face_is_refused(model):
  landmarks = np.full((3, 468, 3), np.nan, np.float32)
  with pytest.raises(InputError, match="No frame has a face"):
    fitting.fit(landmarks, np.zeros(3, bool), SIZE, model)


def test_fewer_frames_a_second_let_the_head_turn_faster(clip, model):
  landmarks, _, rotation, identity, _ = clip
  every = slice(None, None, 3)
  worst = {}
  for fps in (25 / 3, 100.0):
    fit = fitting.fit(
      landmarks[every],
      np.ones(len(landmarks[every]), bool),
      SIZE,
      model,
      identity=identity,
      focal=FOCAL,
      fps=fps,
    )
    worst[fps] = _angles(fit, rotation[every]).max()
  # At a hundredth of a second between frames the smoothness holds back a turn
  # that is right at three twenty-fifths.
  assert worst[25 / 3] < 0.5 < worst[100.0]


@pytest.mark.slow
def test_a_near_camera_s_focal_length_is_estimated(model):
  # A phone at arm's length; at 2.7 head units its focal length would be 1500.
  landmarks, _, rotation, _, _ = _talk(model, 60, focal=700.0, depth=1.3)
  fit = fitting.fit(landmarks, np.ones(60, bool), SIZE, model)
  assert fit.focal == pytest.approx(700, rel=0.1)
  assert _angles(fit, rotation).mean() < 0.7


@pytest.mark.slow
def test_a_face_that_does_not_turn_keeps_the_default_distance(model, clip):
  still = np.tile(clip[0][:1], (20, 1, 1))
  fit = fitting.fit(still, np.ones(20, bool), SIZE, model)
  distance = np.linalg.norm(fit.pose[:, :3, 3], axis=1)
  assert np.median(distance) == pytest.approx(2.7, rel=0.02)


@pytest.mark.slow
def test_a_long_clip_in_pieces_is_like_one_at_once(
  fitted, clip, model, monkeypatch
):
  monkeypatch.setattr(fitting, "NUM_SHARED", 32)
  monkeypatch.setattr(fitting, "NUM_PIECES", 4)
  monkeypatch.setattr(fitting, "_PIECE", 32)
  monkeypatch.setattr(fitting, "_MARGIN", 16)
  monkeypatch.setattr(fitting, "PIECE_PADDING", 64)
  parts = fitting.fit(clip[0], np.ones(60, bool), SIZE, model)
  assert _angles(parts, clip[2]).mean() < 1
  # No seam where the pieces meet: what moves there moves as it does at once.
  for name in ("pose", "expression"):
    joined, whole = getattr(parts, name), getattr(fitted, name)
    step, expected = (np.abs(np.diff(x, axis=0)) for x in (joined, whole))
    assert step[31].max() < 1.5 * expected[29:34].max()


def test_nothing_is_smooth_over_a_cut(clip, model):
  landmarks, _, rotation, identity, _ = clip
  # The head of frame 0 follows that of frame 59, which looks elsewhere.
  order = np.r_[30:60, 0:30]
  shot = np.repeat([0, 1], 30)
  fit = fitting.fit(
    landmarks[order],
    np.ones(60, bool),
    SIZE,
    model,
    identity=identity,
    shot=shot,
  )
  error = _angles(fit, rotation[order])
  assert error[[29, 30]].max() < 1.5 * np.percentile(error, 90)
