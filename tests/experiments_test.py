"""Each small experiment takes real steps, and the next one can use it."""

import functools
import importlib

import chex
import jax
import numpy as np
import pytest
from flax import nnx

from pir_jax import train
from pir_jax.data import synthetic
from pir_jax.inference import opening
from pir_jax.models import vgg, whisper
from pir_jax.profiling import abstract_stage
from pir_jax.runs import frozen_networks, network_file
from pir_jax.runs import run as run_lib
from pir_jax.runtime import sharding
from pir_jax.stages import train_state
from pir_jax.types import Cameras, InputError
from tests.small_experiments import small

NAMES = ("expression", "triplane", "inpainting")


@functools.cache  # A module with flags can be made only once.
def load(name):
  return importlib.import_module(f"experiments.{name}")


def get_config(name, variant="demo"):
  return load(name).get_config(variant)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """One step of every demo, as the user runs them, on synthetic data."""
  folder = tmp_path_factory.mktemp("run")
  synthetic.write_synthetic(folder / "data", num_frames=66)
  patch = pytest.MonkeyPatch()
  # Random weights: the sizes are the real ones, and nothing is downloaded.
  patch.setattr(
    frozen_networks,
    "perceptual",
    lambda config: vgg.Lpips(
      "vgg", num_layers=config.perceptual_layers, rngs=nnx.Rngs(0)
    ),
  )
  patch.setattr(
    frozen_networks,
    "speech_encoder",
    lambda config: whisper.WhisperEncoder(
      whisper.Config(layer_index=config.layer_index or None), rngs=nnx.Rngs(0)
    ),
  )
  patch.setattr(
    frozen_networks,
    "lip_basis",
    lambda space: np.ones((space.expression_size, 3)),
  )
  for name in NAMES:
    experiment = small(name)
    experiment.data.path = str(folder / "data")
    experiment.loop.num_steps = 1
    train.train(experiment, folder / name)
  yield folder
  patch.undo()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_one_step_is_finite_and_moves_every_network(trained, name):
  run = run_lib.open_run(trained / name)
  assert run.step == 1
  fresh = run.stage.init(jax.random.key(run.experiment.seed))
  for network, net in run.state.nets.items():
    leaves = jax.tree.leaves(net.params)
    assert all(np.isfinite(leaf).all() for leaf in leaves), network
    moved = jax.tree.map(
      lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max()),
      net.params,
      fresh.nets[network].params,
    )
    assert max(jax.tree.leaves(moved)) > 0, network


@pytest.mark.slow
def test_a_person_cannot_see_under_the_mask(trained):
  person = opening.load(trained, batch_size=2)
  side = person.resolution
  random = np.random.default_rng(0)
  image = random.uniform(-1, 1, (3, side, side, 3)).astype(np.float32)
  mask = np.zeros((3, side, side, 1), np.float32)
  mask[:, side // 4 : -side // 4, side // 4 : -side // 4] = 1
  other = np.where(mask > 0, random.uniform(-1, 1, image.shape), image)
  pose = np.diag([1.0, -1.0, -1.0, 1.0]).astype(np.float32)
  pose[2, 3] = 2.7
  intrinsics = np.float32([[4.2, 0, 0.5], [0, 4.2, 0.5], [0, 0, 1]])
  cameras = Cameras(np.stack([pose] * 3), np.stack([intrinsics] * 3))
  expression = np.zeros((3, person.space.expression_size), np.float32)
  first = person.inpaint(image, mask, cameras, expression)
  second = person.inpaint(np.float32(other), mask, cameras, expression)
  np.testing.assert_array_equal(first, second)
  assert first.shape == image.shape


@pytest.mark.slow
def test_speech_of_any_length_gives_a_frame_each_40_ms(trained):
  person = opening.load(trained)
  predicted = person.predict_expression(np.zeros(16000 * 3 + 5, np.float32))
  assert predicted.shape == (76, len(person.expression_names))


@pytest.mark.slow
def test_a_run_of_another_config_is_refused(trained):
  experiment = small("triplane")
  experiment.data.path = str(trained / "data")
  experiment.stage.mouth_weight = 7.0
  with pytest.raises(InputError, match="another config"):
    train.train(experiment, trained / "triplane")


@pytest.mark.parametrize("variant", ["demo", "small"])
@pytest.mark.parametrize("name", NAMES)
def test_the_base_fits_those_that_begin_from_it(name, variant):
  """They can take all that the base has learnt."""
  place = run_lib.place_of(run_lib.BASE_FOLDER, name)
  experiment = get_config(name, variant)
  assert experiment.stage.init_from == "base"
  assert get_config(name, "scratch").stage.init_from == ""
  if variant == "demo":
    base = run_lib.experiment_of(run_lib.read_record(place))
    assert experiment.stage.model == base.stage.model
    assert get_config(name, "scratch").stage.model == base.stage.model
  stage = abstract_stage.make_stage(
    experiment,
    get_config("triplane", variant).stage.model,
    sharding.make_mesh(devices=jax.devices()[:1]),
    shapes_only=True,
  )
  arrays = network_file.read_arrays(place)
  begun = train_state.begin_from(stage.abstract_state(), arrays, str(place))
  assert all(
    isinstance(leaf, jax.Array)
    for net in begun.nets.values()
    for leaf in jax.tree.leaves((net.params, net.buffers))
  )


def test_the_base_is_whole_small_and_shows_nobody():
  folder = run_lib.BASE_FOLDER
  network_file.check(folder)
  files = list(folder.iterdir())
  assert sum(path.stat().st_size for path in files) <= 12 * 2**20
  assert (folder / "MODEL_CARD.md").is_file()
  for name in NAMES:
    record = run_lib.read_record(run_lib.place_of(folder, name))
    assert record["people"] == []
  with pytest.raises(InputError, match="a base and shows nobody"):
    opening.load(folder)


@pytest.mark.parametrize("variant", ["demo", "small"])
@pytest.mark.parametrize("name", NAMES)
def test_the_sizes_of_a_variant_fit_each_other(name, variant):
  experiment = get_config(name, variant)
  stage = abstract_stage.make_stage(
    experiment,
    get_config("triplane", variant).stage.model,
    sharding.make_mesh(devices=jax.devices()[:1]),
    shapes_only=True,
  )
  state, *others = abstract_stage.arguments(experiment, stage)
  stepped, _ = stage.compiled[0].trace(state, *others).out_info
  chex.assert_trees_all_equal_shapes_and_dtypes(stepped, state)


@pytest.mark.parametrize("name", NAMES)
def test_the_default_is_the_papers_size(name):
  config = get_config(name, "").stage.model
  sizes = {
    "expression": {"width": 1024, "ffn": 2048, "num_heads": 4, "period": 25},
    "triplane": {
      "plane_resolution": 256,
      "plane_channels": 32,
      "feature_resolution": 64,
      "resolution": 512,
    },
    "inpainting": {
      "feature_channels": 32,
      "num_global_blocks": 4,
      "num_local_blocks": 3,
      "num_downsamples": 2,
    },
  }[name]
  assert {key: getattr(config, key) for key in sizes} == sizes


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_variant_is_refused(name):
  with pytest.raises(ValueError, match="no variant"):
    get_config(name, "huge")


@pytest.mark.parametrize("variant", ["", "demo"])
@pytest.mark.parametrize("k", [1, 10, 50, 100, 200])
def test_context_sweep_changes_the_context_and_nothing_else(variant, k):
  base = get_config("expression", variant)
  made = load("expression_context").with_context(base, k)
  assert made.data.num_frames == made.stage.window == k
  assert made.stage.model.context == k and 2 * made.stage.margin < k
  frames = made.data.batch_size * made.data.num_frames
  assert frames == base.data.batch_size * base.data.num_frames
  assert made.loop == base.loop and made.stage.optim == base.stage.optim


def test_measured_shifts_are_added_to_those_of_the_list(tmp_path):
  write_list = load("speech_folds").write_list
  before, after = tmp_path / "before.tsv", tmp_path / "after.tsv"
  before.write_text(
    "file\tspeaker\tshift\tbasis\na b\tI\t2\tmine\nc\tI\t\t\nd\tI\t1\t\n"
  )
  write_list(before, after, {"a b": -3, "c": 1})
  assert after.read_text() == (
    "file\tspeaker\tbasis\tshift\na b\tI\tmine\t-1\nc\tI\t\t\nd\tI\t\t1\n"
  )
  write_list(after, after, {"a b": None})
  assert "a b\tI\tmine\t\n" in after.read_text()
