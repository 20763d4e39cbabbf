"""EG3D's weights give EG3D's numbers.

The generator's reference file is large and not part of the repository: point
PIR_JAX_REFERENCE at the folder that has eg3d_generator.npz to compare with it.
"""

import os
import pathlib
import pickle
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pir_jax.geometry import cameras, rays, triplane
from pir_jax.models import vgg
from pir_jax.pretrained import eg3d
from pir_jax.runs import run
from pir_jax.runs.experiment import Experiment
from pir_jax.runtime import loop, sharding
from pir_jax.stages import train_state
from pir_jax.stages import triplane as stage
from pir_jax.types import FaceSpace, InputError

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
REFERENCE = os.environ.get("PIR_JAX_REFERENCE")


def _close(got, want, fraction):
  """Largest error as a fraction of the reference's spread."""
  assert np.abs(np.asarray(got) - want).max() < fraction * want.std()


def _layer(path, num_inputs, num_outputs, side, w_size=8):
  """Random weights of one modulated convolution and its buffers."""
  rng = np.random.default_rng(num_inputs + side)
  shapes = {
    "weight": (num_outputs, num_inputs, 3, 3),
    "bias": (num_outputs,),
    "affine.weight": (num_inputs, w_size),
    "affine.bias": (num_inputs,),
    "noise_strength": (),
    "noise_const": (side, side),
    "resample_filter": (4, 4),
  }
  return {
    f"{path}.{name}": np.asarray(rng.normal(size=shape), np.float32)
    for name, shape in shapes.items()
  }


def _image(path, num_inputs, num_outputs):
  """Likewise of a convolution to an image."""
  names = _layer(path, num_inputs, num_outputs, 1)
  names[f"{path}.weight"] = names[f"{path}.weight"][..., :1, :1]
  for name in ("noise_strength", "noise_const", "resample_filter"):
    del names[f"{path}.{name}"]
  return names


def _state_dict(side=512):
  """All the names of EG3D's generator, small, with an image of this side."""
  planes, upsampler = "backbone.synthesis", "superresolution"
  state = {
    f"{planes}.b4.const": np.ones((8, 4, 4), np.float32),
    f"{planes}.b4.resample_filter": np.ones((4, 4), np.float32),
    f"{planes}.b8.resample_filter": np.ones((4, 4), np.float32),
    "backbone.mapping.embed.weight": np.ones((8, 25), np.float32),
    "backbone.mapping.fc0.weight": np.ones((8, 16), np.float32),
    "backbone.mapping.w_avg": np.ones(8, np.float32),
    "decoder.net.0.weight": np.ones((16, 4), np.float32),
    "decoder.net.0.bias": np.ones(16, np.float32),
    "decoder.net.2.weight": np.ones((5, 16), np.float32),
    "decoder.net.2.bias": np.ones(5, np.float32),
  }
  state |= _layer(f"{planes}.b4.conv1", 8, 8, 4)
  state |= _layer(f"{planes}.b8.conv0", 8, 6, 8)
  state |= _layer(f"{planes}.b8.conv1", 6, 6, 8)
  state |= _image(f"{planes}.b4.torgb", 8, 12)
  state |= _image(f"{planes}.b8.torgb", 6, 12)
  for i, (num_inputs, num_outputs) in enumerate(((4, 6), (6, 2))):
    block = f"{upsampler}.block{i}"
    rows = side // 2 << i
    state[f"{block}.resample_filter"] = np.ones((4, 4), np.float32)
    state |= _layer(f"{block}.conv0", num_inputs, num_outputs, rows)
    state |= _layer(f"{block}.conv1", num_outputs, num_outputs, rows)
    state |= _image(f"{block}.torgb", num_outputs, 3)
  return state


@pytest.fixture
def published(monkeypatch, tmp_path):
  """Writes a pickle as EG3D publishes it: networks that are objects."""
  triplane = types.ModuleType("training.triplane")

  class TriPlaneGenerator:
    def __init__(self, state_dict, **attributes):
      # Dotted names stand for the tree of modules here.
      self._parameters = state_dict
      vars(self).update(attributes)

  TriPlaneGenerator.__module__ = triplane.__name__
  TriPlaneGenerator.__qualname__ = "TriPlaneGenerator"
  triplane.TriPlaneGenerator = TriPlaneGenerator
  monkeypatch.setitem(sys.modules, "training", types.ModuleType("training"))
  monkeypatch.setitem(sys.modules, triplane.__name__, triplane)

  def write(state_dict, **attributes):
    path = tmp_path / "network.pkl"
    nets = {
      "D": TriPlaneGenerator({"b4.out.bias": np.zeros(1)}),
      "G_ema": TriPlaneGenerator(state_dict, **attributes),
    }
    path.write_bytes(pickle.dumps(nets))
    return path

  return write


def test_a_published_pickle_gives_weights_and_options(published):
  options = {
    "depth_resolution": 7,
    "depth_resolution_importance": 5,
    "ray_start": 1.5,
    "ray_end": 4,
    "box_warp": 2,
    "white_back": False,
    "superresolution_module": "training.superresolution.any",
  }
  state = _state_dict()
  path = published(
    state, rendering_kwargs=options, neural_rendering_resolution=32
  )
  network = eg3d.load(path)
  rays_config = network.config.renderer
  assert (rays_config.num_coarse, rays_config.num_fine) == (7, 5)
  assert (rays_config.ray_start, rays_config.ray_end) == (1.5, 4.0)
  assert isinstance(rays_config.box_warp, float) and rays_config.box_warp == 2
  assert network.config.feature_resolution == 32
  assert network.config.sr_channels == (6, 2)
  np.testing.assert_array_equal(
    network.upsampler.block1.conv1.bias[...],
    state["superresolution.block1.conv1.bias"],
  )
  # A config that is given stays as it is.
  config = eg3d.infer_config(state)
  config.feature_resolution = 16
  assert eg3d.load(path, config=config).config is config
  assert config.feature_resolution == 16 and config.renderer.num_coarse == 48


@pytest.mark.slow
def test_a_run_takes_sizes_and_weights_of_the_file_it_begins_from(
  tmp_path, monkeypatch
):
  """One config line: sizes, planes and rays are the file's from then on."""
  path = tmp_path / "published.npz"
  np.savez(path, **_state_dict())
  config = stage.Config(init_from=str(path))
  config.model.map_depth = 3
  asked = Experiment(stage=config, loop=loop.Config(num_steps=1))
  found = run.resolve(asked, 9).stage.model
  assert (found.w_size, found.plane_channels, found.map_depth) == (8, 4, 3)
  assert found.renderer.plane_layout == "eg3d"
  assert found.renderer.plane_reduce == "mean"
  assert found.renderer.ray_reference == 0.0
  assert asked.stage.model.plane_channels == 32
  space = FaceSpace(3, ("a", "b"), np.zeros(2), np.ones(2))
  monkeypatch.setattr(
    run.frozen_networks,
    "perceptual",
    lambda _: vgg.Lpips("vgg", num_layers=1, rngs=nnx.Rngs(0)),
  )
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  made = run.make_stage(run.resolve(asked, 9), space, tmp_path, mesh)
  begun = train_state.learnt(made.init(jax.random.key(0)))
  name = "generator/params/"
  assert begun[f"{name}mapping/layers/0/kernel"].shape == (5, 8)
  np.testing.assert_array_equal(
    begun[f"{name}renderer/decoder/hidden/bias"],
    _state_dict()["decoder.net.0.bias"],
  )
  path.write_bytes(b"no weights")
  with pytest.raises(InputError, match="published.npz"):
    run.resolve(asked, 9)


def test_corrections_are_as_many_as_training_frames():
  config = stage.Config()
  config.refinement.enabled = True
  asked = Experiment(stage=config, loop=loop.Config(num_steps=1))
  assert run.resolve(asked, 9).stage.refinement.num_frames == 9
  config.refinement.enabled = False
  assert run.resolve(asked, 9).stage.refinement.num_frames == 0


@pytest.mark.parametrize(
  "options, message",
  (
    ({"ray_start": "auto"}, "ray_start='auto', where our renderer needs"),
    ({"white_back": True}, "white_back=True, and our renderer only"),
    ({"disparity_space_sampling": True}, "disparity_space_sampling=True"),
  ),
)
def test_other_ways_to_render_are_refused(published, options, message):
  with pytest.raises(ValueError, match=message):
    eg3d.load(published(_state_dict(), rendering_kwargs=options))


def test_other_upsamplers_are_refused():
  with pytest.raises(ValueError, match="makes 256 px, so it is .* 2x or 4x"):
    eg3d.from_torch(_state_dict(256))


def test_discriminator_agrees():
  golden = np.load(GOLDENS / "eg3d_discriminator.npz")
  network = eg3d.load_discriminator(GOLDENS / "eg3d_discriminator.npz")
  image, raw = (
    jnp.asarray(np.moveaxis(golden[f"in/{name}"], 1, -1))
    for name in ("image", "image_raw")
  )
  got = jax.jit(network)(image, raw, jnp.asarray(golden["in/camera"]))
  # A dozen layers of float32 sums, read as a small difference.
  _close(got, golden["out/logits"][:, 0], 1e-4)


def test_a_wrong_file_is_explained():
  with pytest.raises(ValueError, match="has no backbone.synthesis.b4"):
    eg3d.from_torch({"G_ema.backbone": np.zeros(1)})
  with pytest.raises(ValueError, match=r"has no b8.conv0.weight"):
    eg3d.discriminator_from_torch({})


@pytest.mark.skipif(
  REFERENCE is None, reason="PIR_JAX_REFERENCE names no folder of references"
)
def test_generator_agrees():
  path = pathlib.Path(REFERENCE) / "eg3d_generator.npz"
  golden, network = np.load(path), eg3d.load(path)
  assert network.config.channel_base == 2048
  camera, points = (
    jnp.asarray(golden[f"in/{n}"]) for n in ("camera", "points")
  )
  got = jax.jit(network.synthesize)(jnp.asarray(golden["in/ws"]), camera)
  planes = np.moveaxis(got.planes, -1, 2)
  _close(
    planes.reshape(2, 96, 256, 256)[:, :, ::8, ::8],
    golden["out/planes_every_8"],
    1e-4,
  )
  lines = rays.cast(cameras.from_vector(camera), 64)
  _close(lines.origins[:, ::64], golden["out/ray_origins"], 1e-4)
  _close(lines.directions[:, ::64], golden["out/ray_directions"], 1e-4)
  bordered = triplane.border(got.planes)
  where = triplane.project(2 * points, layout="eg3d")
  each = [slice(i, i + 1) for i in range(3)]
  features = jnp.stack(
    [triplane.lookup(bordered[:, i], where[:, i]) for i in each], 1
  )
  _close(features, golden["out/plane_features"], 1e-4)
  samples = network.renderer.sample(bordered, points)
  _close(samples.density, golden["out/sigma"][..., 0], 1e-4)
  _close(samples.color, golden["out/rgb"], 1e-4)
  feature_image = np.moveaxis(golden["out/feature_image"], 1, -1)
  _close(got.feature_image, feature_image, 1e-4)
  _close(got.depth.reshape(2, -1), golden["out/depth"][..., 0], 1e-4)
  _close(got.weight_sum.reshape(2, -1), golden["out/weight_sum"][..., 0], 1e-4)
  image = np.moveaxis(golden["out/image_every_2"], 1, -1)
  _close(got.image[:, ::2, ::2], image, 1e-3)
