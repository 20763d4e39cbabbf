"""EG3D's published generator and discriminator -> ours.

Sizes are read off the shapes, and how rays are sampled off the pickled object.
EG3D's mapping network takes noise and a camera, ours identity and expression,
so theirs is left out and ours stays as made.
o output channels, i input channels.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from pir_jax.models import dual_discriminator, renderer, triplane_generator
from pir_jax.pretrained import weight_map, weights
from pir_jax.pretrained.weight_map import Rule
from pir_jax.types import InputError

StateDict = Mapping[str, np.ndarray]

# Side of the image of EG3D's 8x upsamplers, the only ones that are like ours.
_SIDE = 512
# EG3D's rendering options -> ours, which are numbers.
_OPTIONS = {
  "depth_resolution": "num_coarse",
  "depth_resolution_importance": "num_fine",
  "ray_start": "ray_start",
  "ray_end": "ray_end",
  "box_warp": "box_warp",
}
# Options that our renderer does not have.
_FIXED = {
  "disparity_space_sampling": False,
  "white_back": False,
  "decoder_lr_mul": 1,
}


def _flipped(weight: np.ndarray) -> np.ndarray:
  """Converts a transposed convolution's kernel to our correlation."""
  return weight_map.conv2d(weight)[::-1, ::-1]


def _constant(weight: np.ndarray) -> np.ndarray:
  """(i, 4, 4) -> (4, 4, i)."""
  return np.transpose(weight, (1, 2, 0))


def _flat_image(weight: np.ndarray) -> np.ndarray:
  """Converts a linear layer after a 4x4 image: channels move to the end."""
  image = weight.reshape(weight.shape[0], -1, 4, 4)
  return np.transpose(image, (2, 3, 1, 0)).reshape(-1, weight.shape[0])


def _styled(theirs: str, ours: str, *, up: bool) -> list[Rule]:
  """Returns the rules of one modulated convolution with its noise."""
  kernel = _flipped if up else weight_map.conv2d
  return [
    Rule(rf"{theirs}\.weight", f"{ours}.kernel", kernel),
    Rule(rf"{theirs}\.bias", f"{ours}.bias"),
    Rule(
      rf"{theirs}\.affine\.weight", f"{ours}.affine.kernel", weight_map.linear
    ),
    Rule(rf"{theirs}\.affine\.bias", f"{ours}.affine.bias"),
    Rule(rf"{theirs}\.noise_strength", f"{ours}.noise_strength"),
    Rule(rf"{theirs}\.noise_const", f"{ours}.noise"),
  ]


def _to_image(theirs: str, ours: str) -> list[Rule]:
  return [
    Rule(rf"{theirs}\.weight", f"{ours}.kernel", weight_map.conv2d),
    Rule(rf"{theirs}\.bias", f"{ours}.bias"),
    Rule(
      rf"{theirs}\.affine\.weight", f"{ours}.affine.kernel", weight_map.linear
    ),
    Rule(rf"{theirs}\.affine\.bias", f"{ours}.affine.bias"),
  ]


def _block(theirs: str, ours: str) -> list[Rule]:
  return [
    *_styled(rf"{theirs}\.conv0", f"{ours}.conv0", up=True),
    *_styled(rf"{theirs}\.conv1", f"{ours}.conv1", up=False),
    *_to_image(rf"{theirs}\.torgb", f"{ours}.to_image"),
  ]


def _generator_table(sides: list[int], noise: bool) -> list[Rule]:
  synthesis = r"backbone\.synthesis"
  table = [
    Rule(r".*resample_filter", None),
    Rule(r"backbone\.mapping\..*", None),
    Rule(r"superresolution\..*noise_(const|strength)", None),
    Rule(rf"{synthesis}\.b4\.const", "backbone.constant", _constant),
    *_styled(rf"{synthesis}\.b4\.conv1", "backbone.conv", up=False),
    *_to_image(rf"{synthesis}\.b4\.torgb", "backbone.to_image"),
    *_block(r"superresolution\.block0", "upsampler.block0"),
    *_block(r"superresolution\.block1", "upsampler.block1"),
  ]
  if not noise:
    table.insert(0, Rule(r".*noise_(const|strength)", None))
  for i, side in enumerate(sides[1:]):
    table += _block(rf"{synthesis}\.b{side}", f"backbone.blocks.{i}")
  for index, name in ((0, "hidden"), (2, "output")):
    ours = f"renderer.decoder.{name}"
    theirs = rf"decoder\.net\.{index}"
    table += [
      Rule(rf"{theirs}\.weight", f"{ours}.kernel", weight_map.linear),
      Rule(rf"{theirs}\.bias", f"{ours}.bias"),
    ]
  return table


def _sides(state_dict: StateDict, pattern: str) -> list[int]:
  """Returns the sides n of all blocks named b<n>, rising."""
  matches = (re.fullmatch(pattern, name) for name in state_dict)
  return sorted(int(match[1]) for match in matches if match)


def _shape(state_dict: StateDict, name: str) -> tuple[int, ...]:
  if name not in state_dict:
    raise InputError(
      f"the state dict has no {name}: give one EG3D network (G_ema or D), "
      "without a prefix before its names"
    )
  return np.shape(state_dict[name])


def infer_config(state_dict: StateDict) -> triplane_generator.Config:
  """Reads sizes off shapes; identity, expression and rays keep their defaults.

  Raises:
    InputError: this is no generator of EG3D, or one whose upsampler (2x, 4x)
      is not like ours.
  """
  synthesis = "backbone.synthesis.b"
  sides = _sides(state_dict, r"backbone\.synthesis\.b(\d+)\.conv1\.weight")
  if not sides:
    _shape(state_dict, f"{synthesis}4.conv1.weight")
  widths = [
    _shape(state_dict, f"{synthesis}{side}.conv1.weight")[0] for side in sides
  ]
  image, _, _, _ = _shape(state_dict, f"{synthesis}4.torgb.weight")
  first, second = (
    _shape(state_dict, f"superresolution.block{i}.conv1.weight")[0]
    for i in range(2)
  )
  noise = state_dict.get("superresolution.block1.conv1.noise_const")
  if noise is not None and noise.shape[0] != _SIDE:
    raise InputError(
      f"the upsampler makes {noise.shape[0]} px, so it is EG3D's 2x or 4x one, "
      f"which ours is not: give a network of {_SIDE} px, such as ffhq512-128"
    )
  hidden, _ = _shape(state_dict, "decoder.net.0.weight")
  return triplane_generator.Config(
    w_size=_shape(state_dict, f"{synthesis}4.conv1.affine.weight")[1],
    channel_base=widths[-1] * sides[-1],
    channel_max=max(widths),
    plane_resolution=sides[-1],
    plane_channels=image // 3,
    sr_channels=(first, second),
    resolution=_SIDE,
    noise=f"{synthesis}4.conv1.noise_const" in state_dict,
    renderer=renderer.Config(
      plane_layout="eg3d",
      plane_reduce="mean",
      fine_bins="eg3d",
      hidden_size=hidden,
      ray_reference=0.0,
    ),
  )


def from_torch(
  state_dict: StateDict,
  *,
  config: triplane_generator.Config | None = None,
  rngs: nnx.Rngs | None = None,
) -> triplane_generator.TriPlaneGenerator:
  """Reads a TriPlaneGenerator's state dict (names and layouts as published).

  Args:
    state_dict: name -> array.
    config: sizes; by default `infer_config`.
    rngs: for the mapping network, which EG3D's weights do not give.

  Raises:
    InputError: with every name and shape that does not fit.
  """
  config = infer_config(state_dict) if config is None else config
  module = triplane_generator.TriPlaneGenerator(
    config, rngs=nnx.Rngs(0) if rngs is None else rngs
  )
  sides = [4 << i for i in range(1 + len(module.backbone.blocks))]
  table = _generator_table(sides, config.noise)
  weight_map.apply(table, state_dict, module, keep=[r"mapping\..*"])
  return module


def read_config(path: str | Path) -> triplane_generator.Config:
  """Returns the Config that `load` would take from a file.

  Raises:
    InputError: the file cannot be read, or holds no network like ours.
  """
  network = weights.read_network(path, network="G_ema")
  config = infer_config(network.weights)
  _set_options(config, network.attributes)
  return config


def load(
  path: str | Path,
  *,
  config: triplane_generator.Config | None = None,
  rngs: nnx.Rngs | None = None,
) -> triplane_generator.TriPlaneGenerator:
  """Reads the generator of a published file, or of one converted from it.

  Args:
    path: as for `weights.read`; of a pickle of several networks, G_ema.
    config: by default `infer_config`; where the file is a pickled network,
      with the ray sampling and the side of its feature image.
    rngs: as for `from_torch`.

  Raises:
    InputError: the file cannot be read, its weights do not fit, or it has
      options that we do not have.
  """
  network = weights.read_network(path, network="G_ema")
  if config is None:
    config = infer_config(network.weights)
    _set_options(config, network.attributes)
  return from_torch(network.weights, config=config, rngs=rngs)


def _set_options(
  config: triplane_generator.Config, attributes: Mapping[str, Any]
) -> None:
  """Copies the options that the pickled object holds beside its weights."""
  options = attributes.get("rendering_kwargs", {})
  for name, ours in _OPTIONS.items():
    default = getattr(config.renderer, ours)
    value = options.get(name, default)
    if isinstance(value, str):
      raise InputError(
        f"the network has {name}={value!r}, where our renderer needs a number: "
        "give load a config"
      )
    setattr(config.renderer, ours, type(default)(value))
  for name, ours in _FIXED.items():
    if options.get(name, ours) != ours:
      raise InputError(
        f"the network has {name}={options[name]!r}, and our renderer only "
        f"knows {ours}: give a network made so, such as ffhq512-128"
      )
  config.feature_resolution = attributes.get(
    "neural_rendering_resolution", config.feature_resolution
  )


def load_discriminator(
  path: str | Path, *, config: dual_discriminator.Config | None = None
) -> dual_discriminator.DualDiscriminator:
  """Reads the discriminator of a published file, like `load`."""
  return discriminator_from_torch(
    weights.read(path, network="D"), config=config
  )


def _discriminator_table(sides: list[int]) -> list[Rule]:
  table = [
    Rule(r".*resample_filter", None),
    Rule(r"mapping\.w_avg", None),
    Rule(
      rf"b{sides[-1]}\.fromrgb\.weight", "from_image.kernel", weight_map.conv2d
    ),
    Rule(rf"b{sides[-1]}\.fromrgb\.bias", "from_image.bias"),
    Rule(r"b4\.conv\.weight", "conv.kernel", weight_map.conv2d),
    Rule(r"b4\.conv\.bias", "conv.bias"),
    Rule(r"b4\.fc\.weight", "hidden.kernel", _flat_image),
    Rule(r"b4\.fc\.bias", "hidden.bias"),
    Rule(r"b4\.out\.weight", "output.kernel", weight_map.linear),
    Rule(r"b4\.out\.bias", "output.bias"),
    Rule(r"mapping\.embed\.weight", "label.embed.kernel", weight_map.linear),
    Rule(r"mapping\.embed\.bias", "label.embed.bias"),
    Rule(
      r"mapping\.fc(\d+)\.weight",
      r"label.mapping.layers.\1.kernel",
      weight_map.linear,
    ),
    Rule(r"mapping\.fc(\d+)\.bias", r"label.mapping.layers.\1.bias"),
  ]
  for i, side in enumerate(reversed(sides)):
    table += [
      Rule(
        rf"b{side}\.(conv0|conv1|skip)\.weight",
        rf"blocks.{i}.\1.kernel",
        weight_map.conv2d,
      ),
      Rule(rf"b{side}\.(conv0|conv1|skip)\.bias", rf"blocks.{i}.\1.bias"),
    ]
  return table


def discriminator_from_torch(
  state_dict: StateDict, *, config: dual_discriminator.Config | None = None
) -> dual_discriminator.DualDiscriminator:
  """Reads a DualDiscriminator's state dict, like `from_torch`."""
  sides = _sides(state_dict, r"b(\d+)\.conv0\.weight")
  if not sides:
    _shape(state_dict, "b8.conv0.weight")
  if config is None:
    layers = _sides(state_dict, r"mapping\.fc(\d+)\.weight")
    label = state_dict.get("mapping.embed.weight", np.zeros((0, 0)))
    widths = [_shape(state_dict, f"b{s}.conv0.weight")[0] for s in sides]
    config = dual_discriminator.Config(
      resolution=sides[-1],
      label_size=label.shape[1],
      channel_base=widths[-1] * sides[-1],
      channel_max=_shape(state_dict, "b4.fc.weight")[0],
      map_depth=len(layers),
    )
  module = dual_discriminator.DualDiscriminator(config, rngs=nnx.Rngs(0))
  weight_map.apply(_discriminator_table(sides), state_dict, module)
  return module
