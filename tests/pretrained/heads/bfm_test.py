"""The Basel Face Model in Deep3DFaceRecon's layout, written small and read."""

import numpy as np
import pytest
from scipy import io

from pir_jax.face import fitting, masks, morphable, windows
from pir_jax.pretrained.heads import bfm, importer
from pir_jax.types import InputError


def write(path, foreign, **changes):
  """A file as util/load_mats.py of Deep3DFaceRecon_pytorch saves it."""
  random = np.random.default_rng(0)
  # 64 principal components of motions that 52 units span, of falling size.
  mixed = np.linalg.qr(random.normal(size=(64, 52)))[0]
  mixed = mixed * np.linspace(1, 0.3, 64)[:, None]
  scale = morphable.HEAD_UNITS_PER_DECIMETRE

  def columns(basis):
    return basis.reshape(len(basis), -1).T / scale

  arrays = {
    "meanshape": foreign.mean.reshape(1, -1) / scale,
    "meantex": np.zeros((1, foreign.mean.size)),
    "idBase": columns(foreign.identity),
    "exBase": columns(np.tensordot(mixed, foreign.expression, 1)),
    "texBase": np.zeros((foreign.mean.size, 80), np.float32),
    "tri": foreign.triangles + 1,
    "point_buf": np.zeros((len(foreign.mean), 8)),
    "keypoints": foreign.places[None] + 1,
    "skinmask": np.zeros((1, len(foreign.mean))),
  } | changes
  io.savemat(path, {k: v for k, v in arrays.items() if v is not None})
  return path


@pytest.fixture(scope="module")
def model(foreign, tmp_path_factory):
  folder = tmp_path_factory.mktemp("bfm")
  source = write(folder / "BFM_model_front.mat", foreign)
  return importer.convert("bfm", source, folder / "bfm.npz").model


def test_sizes_are_the_papers(model):
  assert len(model.identity_basis) == 80
  assert len(model.expression_basis) == len(model.expression_names) == 64
  assert not model.bounded
  assert model.name == "bfm"


def test_landmarks_are_found(model, foreign):
  misses = foreign.misses(model)
  assert np.sqrt(np.mean(misses**2)) < 1.5
  assert model.landmark_valid.all()


def test_mean_lies_where_eg3d_puts_it(model, foreign):
  # Its own vertices come first, then the skull of the open head.
  own = model.mean[: len(foreign.mean)]
  np.testing.assert_allclose(own.mean(0), [0, 0.006, 0.161], atol=1e-5)
  assert np.ptp(own[:, 1]) == pytest.approx(np.ptp(foreign.mean[:, 1]), 1e-5)
  assert np.ptp(model.mean[:, 2]) > 1.5 * np.ptp(own[:, 2])
  assert model.triangles.max() < len(own)


def test_jaw_opens_without_a_name(model):
  moves = np.tensordot(morphable.jaw_open(model), model.landmark_expression, 1)
  head = morphable.load()
  wanted = np.tensordot(morphable.jaw_open(head), head.landmark_expression, 1)
  # Lower lip and chin, as far as a ridge of a standard deviation lets them.
  for point in (14, 17, 152):
    assert moves[point, 1] == pytest.approx(wanted[point, 1], rel=0.15)
  assert np.abs(moves[[13, 0, 10, 168]]).max() < 0.01


def _film(model, num):
  """A turning head that opens its mouth: landmarks, turn and pixels of each."""
  random = np.random.default_rng(1)
  person = random.normal(0, 0.5, 80).astype(np.float32)
  swing = np.sin(np.arange(num) / 4)
  spoken = (1 + swing[:, None]) / 2 * morphable.jaw_open(model)
  identity = np.broadcast_to(person, (num, 80))
  head = np.asarray(morphable.landmarks(model, identity, np.float32(spoken)))
  angle = 0.2 * np.cos(np.arange(num) / 7)
  cosine, sine, zero = np.cos(angle), np.sin(angle), np.zeros(num)
  turn = np.stack(
    [cosine, zero, sine, zero, zero + 1, zero, -sine, zero, cosine], -1
  ).reshape(num, 3, 3)
  turn = np.diag([1.0, -1.0, -1.0]) @ turn
  local = head @ turn.swapaxes(1, 2) + [0, 0, 2.7]
  seen = 1500 * local[..., :2] / local[..., 2:] + 256
  seen = seen + random.normal(0, 0.3, seen.shape)
  depth = local[..., 2:] - local[..., 2:].mean(1, keepdims=True)
  return head, turn, np.float32(np.concatenate([seen, 555 * depth], -1)), person


@pytest.mark.slow
def test_a_fit_with_it_finds_pose_and_opening(model):
  num = 40
  head, turn, points, _ = _film(model, num)
  fit = fitting.fit(points, np.ones(num, bool), (512, 512), model)
  rotation = fit.pose[:, :3, :3].swapaxes(1, 2)
  between = rotation @ turn.swapaxes(1, 2)
  trace = np.trace(between, axis1=1, axis2=2)
  degrees = np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))
  assert np.median(degrees) < 1.5
  shape = np.asarray(
    morphable.landmarks(
      model, np.broadcast_to(fit.identity, (num, 80)), fit.expression
    )
  )
  opening, true = (x[:, 13, 1] - x[:, 14, 1] for x in (shape, head))
  assert np.corrcoef(opening, true)[0, 1] > 0.99


def test_masks_hold_the_mouth_of_every_frame(model):
  num = 3
  _, turn, points, person = _film(model, num)
  pose = np.tile(np.eye(4, dtype=np.float32), (num, 1, 1))
  pose[:, :3, :3] = turn.swapaxes(1, 2)
  pose[:, :3, 3] = -2.7 * turn[:, 2]
  fit = fitting.Fit(
    identity=person,
    expression=np.zeros((num, 64), np.float32),
    pose=pose,
    focal=1500.0,
    centre=np.float32([256, 256]),
    offset=np.zeros((468, 3), np.float32),
    residual=np.zeros(num, np.float32),
    face_height=float(np.ptp(points[0, :, 1])),
  )
  window = windows.window(model, fit)
  cover = masks.face_mask(model, fit, window, 64)
  around = masks.head_mask(model, fit, window, 64)
  assert (cover.sum((1, 2)) > 300).all()
  assert (around.sum((1, 2)) > cover.sum((1, 2))).all()
  corner = window[:, None, :2] - window[:, None, 2:] / 2
  lips = (points[:, morphable.LIPS, :2] - corner) / window[:, None, 2:] * 64
  column, row = lips.astype(int).clip(0, 63).transpose(2, 0, 1)
  assert cover[np.arange(num)[:, None], row, column].all()


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"exBase": None, "tri": None}, "no exBase, tri"),
    ({"meanshape": None, "shapePC": np.zeros(3)}, "the original BFM 2009"),
    ({"keypoints": np.ones((1, 5))}, "5 keypoints"),
    ({"tri": np.full((9, 3), 10**6)}, "tri names vertices that do not exist"),
    ({"idBase": np.zeros((30, 199))}, "idBase has shape"),
  ],
)
def test_another_file_is_told_in_a_sentence(foreign, tmp_path, changes, words):
  path = write(tmp_path / "x.mat", foreign, **changes)
  with pytest.raises(InputError, match=words):
    bfm.read(path)


def test_hdf5_is_another_basel_model(tmp_path):
  path = tmp_path / "model2019_fullHead.h5"
  path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(700))
  with pytest.raises(InputError, match="BFM 2017 and 2019"):
    bfm.read(path)
  path.write_bytes(b"nothing of the sort" * 40)
  with pytest.raises(InputError, match="no MATLAB file"):
    bfm.read(path)


def test_a_face_in_another_unit_is_refused(foreign, tmp_path):
  path = write(tmp_path / "x.mat", foreign)
  arrays = io.loadmat(path)
  path = write(tmp_path / "y.mat", foreign, meanshape=1e5 * arrays["meanshape"])
  with pytest.raises(InputError, match="times as large as in life"):
    importer.convert("bfm", path, tmp_path / "y.npz")
  shuffled = np.random.default_rng(0).permutation(foreign.places)
  path = write(tmp_path / "y.mat", foreign, keypoints=shuffled + 1)
  with pytest.raises(InputError, match="do not lie like those of a face"):
    importer.convert("bfm", path, tmp_path / "y.npz")
