"""The tri-plane stage's report: rows are of what they say.

t frames, h side of a frame.
"""

import json
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from pir_jax.data import manifest, records, sources, synthetic, timing
from pir_jax.data.dataset import Clip
from pir_jax.evaluation import triplane
from pir_jax.geometry import cameras as cameras_lib
from pir_jax.inference import viewer
from pir_jax.metrics import lpips
from pir_jax.models import triplane_generator, vgg
from pir_jax.runs import frozen_networks
from pir_jax.runs import run as run_lib
from pir_jax.runtime import checkpoint
from pir_jax.stages import conditioning
from pir_jax.types import Cameras, FaceSpace, InputError

SIZE = 64
EVERYWHERE = (slice(0, SIZE), slice(0, SIZE))
NUM_KNOWN = 4
SPACE = FaceSpace(
  NUM_KNOWN, synthetic.NAMES, np.float32([0.4] * 4), np.float32([0.25] * 4)
)


class Face(nnx.Module):
  """Red shows the standardised jaw, green the camera's x, blue who it is."""

  def __init__(self, resolution=SIZE):
    self.config = triplane_generator.Config(resolution=resolution)
    self.gain = nnx.Param(jnp.ones(()))

  def __call__(self, identity, expression, cameras):
    red = self.gain * expression[:, 0] / 4
    colour = jnp.stack([red, cameras[:, 3] / 4, identity[:, 0] / 4], -1)
    num, side = len(colour), self.config.resolution

    def fill(value, side):
      shape = (num, 1, 1, *value.shape[1:])
      return jnp.broadcast_to(
        value.reshape(shape), (num, side, side, *value.shape[1:])
      )

    return triplane_generator.TriPlaneOutput(
      planes=jnp.zeros((num, 3, 1, 1, 3)),
      feature_image=fill(colour, side // 4),
      depth=fill(cameras[:, 3], side // 4),
      weight_sum=jnp.ones((num, side // 4, side // 4)),
      raw_image=fill(colour / 2, side // 4),
      image=fill(colour, side),
    )


@pytest.fixture(scope="module")
def network():
  graph, state = nnx.split(
    nnx.eval_shape(lambda: vgg.Lpips("alex", rngs=nnx.Rngs(0)))
  )
  rng = np.random.default_rng(1)

  def draw(x):
    value = np.abs(rng.normal(size=x.shape)) - (x.ndim > 1)
    return jnp.asarray(value / np.sqrt(x.size), x.dtype)

  # Filled from numpy: drawing in JAX compiles once a shape.
  return nnx.merge(graph, jax.tree.map(draw, state))


@pytest.fixture(scope="module")
def distance(network):
  return lpips.Distance(network)


def make_frames(num=3):
  """Noise that leaves room for an offset; the mouth is part of the head."""
  rng = np.random.default_rng(0)
  regions = np.zeros((2, num, SIZE, SIZE, 1), np.float32)
  regions[0, :, 8:56, 16:48] = 1
  regions[1, :, 40:48, 24:40] = 1
  return triplane.Frames(
    rng.integers(50, 200, (num, SIZE, SIZE, 3)).astype(np.uint8),
    *regions,
    Cameras(np.tile(np.eye(4), (num, 1, 1)), np.tile(np.eye(3), (num, 1, 1))),
    np.zeros((num, NUM_KNOWN), np.float32),
  )


def no_distance(frames, target):
  del target
  return np.zeros(len(frames))


def test_equal_frames_are_equal_and_others_are_not(distance):
  target = make_frames()
  row = triplane.measure(target.image, target, distance, EVERYWHERE)
  assert row == (np.inf, 1.0, 0.0, np.inf)
  row = triplane.measure(255 - target.image, target, distance, EVERYWHERE)
  assert row.ssim_head < 0.5 and row.lpips_head > 0


def test_the_head_alone_counts(distance):
  target = make_frames()
  head = target.head > 0
  shown = np.where(head, target.image[::-1], target.image)
  row = triplane.measure(shown, target, distance, EVERYWHERE)
  other = np.where(head, shown, 255 - shown)
  assert triplane.measure(other, target, distance, EVERYWHERE) == row
  # The middle frame is its own mirror image: one of three dB is infinite.
  assert np.isinf(row.psnr_head) and 0 < row.lpips_head


@pytest.mark.parametrize("off", [1, 20])
def test_a_constant_offset_gives_its_decibels(off):
  # More frames than a batch, and not a whole number of them.
  target = make_frames(triplane.BATCH + 3)
  shown = target.image + np.where(target.mouth > 0, 2 * off, off).astype(
    np.uint8
  )
  row = triplane.measure(shown, target, no_distance, EVERYWHERE)
  # Of images in [-1, 1], where a grey level is 2 / 255.
  d = 2 * off / 255
  assert row.psnr_mouth == pytest.approx(20 * np.log10(2 / (2 * d)))
  share = target.mouth.sum() / target.head.sum()
  want = 10 * np.log10(4 / (d**2 * (1 + 3 * share)))
  assert row.psnr_head == pytest.approx(want)


def test_an_edge_counts_by_how_much_of_it_is_head():
  target = make_frames()
  target.head[:, 8:32] = 0.5
  target.head[:, 32:] = 1.0
  shown = target.image.copy()
  shown[:, 8:32] += 8
  psnr = triplane.decibels(shown, target.image, target.head)
  # Half of 24 rows among as much and 32 more, and so a share 12 / 44.
  want = 20 * np.log10(255 / 8) - 10 * np.log10(12 / 44)
  np.testing.assert_allclose(psnr, want)


def test_decibels_are_averaged_over_the_frames_that_have_the_region():
  target = make_frames()
  target.mouth[1] = 0
  off = np.array([1, 5, 10], np.uint8)[:, None, None, None]
  row = triplane.measure(target.image + off, target, no_distance, EVERYWHERE)
  want = 20 * np.log10(255 / off.ravel())
  assert row.psnr_head == pytest.approx(want.mean())
  assert row.psnr_mouth == pytest.approx(want[[0, 2]].mean())
  target.mouth[:] = 0
  row = triplane.measure(target.image, target, no_distance, EVERYWHERE)
  assert np.isnan(row.psnr_mouth)
  assert triplane.as_text({"ours": row}, "me").split()[-1] == "nan"


def write_clip(folder, **constant):
  """A clip of 66 frames in which some of the track does not change."""
  track = synthetic.synthetic_track(66, size=SIZE)
  for name, row in constant.items():
    value = getattr(track, name)
    track = track._replace(**{name: np.repeat(value[row][None], 66, 0)})
  frames = (
    synthetic.render_face(track, int(i), SIZE)._replace(
      image=np.full((SIZE, SIZE, 3), i, np.uint8)
    )
    for i in timing.select_frames(track.times)
  )
  records.write_dataset(
    folder,
    track,
    frames,
    np.zeros(0, np.float32),
    opening=track.expression[:, 0],
    video=synthetic.video_info(track, SIZE),
    expression_names=synthetic.NAMES,
  )
  return folder


@pytest.mark.parametrize("same", ["nothing", "expression", "pose"])
def test_baselines_are_the_mean_and_the_nearest_training_frame(tmp_path, same):
  constant = {} if same == "nothing" else {same: 0}
  data = write_clip(tmp_path / "me", **constant)
  train = sources.FrameSource(data, resolution=SIZE)
  asked = np.array([3, 40, 17])
  target = triplane.take(train, asked)
  # Near the frames asked for, not the same.
  target = target._replace(expression=target.expression + 1e-4)
  rows = triplane.baselines(target, Clip.open(data), SPACE)
  # Each frame's grey level is its number, and those from 60 on are held out.
  np.testing.assert_array_equal(rows[triplane.NEAREST][:, 0, 0, 0], asked)
  np.testing.assert_array_equal(rows[triplane.MEAN], round(np.mean(range(60))))
  held_out = triplane.take(
    sources.FrameSource(data, resolution=SIZE, split="held_out"), np.arange(6)
  )
  rows = triplane.baselines(held_out, Clip.open(data), SPACE)
  assert held_out.image.min() >= 60 and rows[triplane.NEAREST].max() < 60


def test_every_frame_is_shown_with_its_own_camera_and_expression(monkeypatch):
  num = triplane.BATCH + 3
  rng = np.random.default_rng(0)
  target = make_frames(num)
  target.cameras.pose[:, 0, 3] = rng.uniform(-2, 2, num)
  target = target._replace(expression=np.float32(rng.uniform(0, 0.8, (num, 4))))
  # A second trace fails: the last batch is filled up to the same shape.
  once = chex.assert_max_traces(conditioning.inputs, n=1)
  monkeypatch.setattr(conditioning, "inputs", once)
  show = triplane.renderer(Face(), SPACE, np.float32([1, 0, 0, 0]))
  seen = show(target)
  show(target._replace(image=target.image[:1]))
  known = SPACE.standardise(target.expression)[:, 0]
  vectors = np.asarray(cameras_lib.to_vector(target.cameras))
  want = np.stack([known / 4, vectors[:, 3] / 4, np.full(num, 0.25)], -1)
  # Half a grey level of rounding.
  for got, value in ((seen.image, want), (seen.raw, want / 2)):
    assert got.shape == target.image.shape
    levels = got / 127.5 - 1
    np.testing.assert_allclose(
      levels, np.broadcast_to(value[:, None, None], levels.shape), atol=0.0041
    )
  np.testing.assert_allclose(seen.depth[:, 0, 0], vectors[:, 3], rtol=1e-6)


@pytest.fixture
def model(tmp_path, monkeypatch, network):
  """A folder with runs whose networks are made up; people come from `me`."""
  made = synthetic.write_synthetic(tmp_path / "me", num_frames=66)
  folder, people = tmp_path / "model", [{"identity": made.identity}]
  space = SPACE._replace(identity_size=len(made.identity))
  for stage in ("triplane", "expression"):
    record = {"stage": stage, "people": people}
    checkpoint.write_record(folder / stage, record)
  experiment = types.SimpleNamespace(
    stage=types.SimpleNamespace(init_from="base")
  )
  run = run_lib.Run(experiment, None, None, space, 0, people)
  monkeypatch.setattr(viewer, "open_run", lambda path: run)
  monkeypatch.setattr(viewer, "generator_of", lambda run: Face())
  monkeypatch.setattr(frozen_networks, "lpips_network", lambda kind: network)
  return folder


def test_report_of_a_folder_or_the_run_in_it(tmp_path, model):
  text = triplane.report(model, Clip.open(tmp_path / "me"), tmp_path / "report")
  head, _, *lines = text.splitlines()
  assert head == "synthetic, begun from base: 6 held-out frames at 64 px"
  table = json.loads((tmp_path / "report" / "triplane.json").read_text())
  order = (triplane.TARGET, triplane.MEAN, triplane.NEAREST, triplane.RAW)
  order += (triplane.OURS, triplane.TRAINED)
  assert tuple(table) == order
  for line, (name, row) in zip(lines, table.items(), strict=False):
    assert line.startswith(name) and line.endswith(f"{row['psnr_mouth']:8.2f}")
  assert "40 frames of the training part" in text
  best = max(row["psnr_head"] for row in table.values())
  assert best == table[triplane.TARGET]["psnr_head"]
  assert (tmp_path / "report" / "triplane.txt").read_text() == text + "\n"
  with Image.open(tmp_path / "report" / "triplane.png") as picture:
    # Four rows with a name above each; all six frames.
    assert picture.size == (6 * 192, 4 * (192 + 22))
  again = triplane.report(
    model / "triplane", Clip.open(tmp_path / "me"), tmp_path / "two"
  )
  assert again == text


def test_report_refuses_or_names_what_does_not_belong(tmp_path, model):
  output = tmp_path / "report"
  with pytest.raises(InputError, match="stage expression"):
    triplane.report(model / "expression", Clip.open(tmp_path / "me"), output)
  with pytest.raises(InputError, match="not a prepared clip"):
    Clip.open(tmp_path)
  assert not output.exists()
  synthetic.write_synthetic(tmp_path / "you", num_frames=66, seed=1)
  text = triplane.report(model, Clip.open(tmp_path / "you"), output)
  assert text.startswith(
    "synthetic, not in the training data, begun from base: 6 held-out"
  )
  path = tmp_path / "you" / manifest.FILE_NAME
  path.write_text(path.read_text().replace("jawOpen", "jawShut"))
  with pytest.raises(InputError, match="face models"):
    triplane.report(model, Clip.open(tmp_path / "you"), output)


def test_places_are_spread_evenly():
  np.testing.assert_array_equal(triplane.evenly(5, 9), np.arange(5))
  np.testing.assert_array_equal(triplane.evenly(9, 3), [0, 4, 8])
