"""pix2pixHD weights: LocalEnhancer and MultiscaleDiscriminator state dicts.

The sizes are read off the arrays' shapes, so no options file is needed.
"""

import re
from collections.abc import Mapping

import numpy as np
from flax import nnx

from pir_jax.models import inpainting, patch_discriminator
from pir_jax.pretrained import weight_map, zeros

StateDict = Mapping[str, np.ndarray]


def from_torch(state_dict: StateDict) -> inpainting.InpaintingGenerator:
  """Converts a LocalEnhancer (one enhancer, InstanceNorm) to our network.

  Residual blocks wider than the last down-convolution mean that a feature image
  was concatenated before them.

  Raises:
    InputError: names or shapes do not fit; all mismatches in one message.
  """
  config = generator_config(state_dict)
  model = zeros.module(
    lambda: inpainting.InpaintingGenerator(config, rngs=nnx.Rngs(0))
  )
  weight_map.apply(_generator_table(config), state_dict, model)
  return model


def discriminator_from_torch(
  state_dict: StateDict,
) -> patch_discriminator.MultiscaleDiscriminator:
  """Converts a MultiscaleDiscriminator that keeps its features.

  Raises:
    InputError: names or shapes do not fit; all mismatches in one message.
  """
  config = discriminator_config(state_dict)
  model = zeros.module(
    lambda: patch_discriminator.MultiscaleDiscriminator(
      config, rngs=nnx.Rngs(0)
    )
  )
  weight_map.apply(_discriminator_table(config), state_dict, model)
  return model


def generator_config(state_dict: StateDict) -> inpainting.Config:
  """Reads the sizes of a LocalEnhancer off its arrays.

  Raises:
    ValueError: where the names are not those of a LocalEnhancer.
  """
  plain = [n for n in state_dict if re.fullmatch(r"model\.\d+\.weight", n)]
  blocks = [_index(n) for n in state_dict if re.fullmatch(_GLOBAL_BLOCK, n)]
  local = [n for n in state_dict if re.fullmatch(_LOCAL_BLOCK, n)]
  first = min(blocks, default=-1)
  # A down-convolution is told from a transposed one by its place alone.
  num = len([n for n in plain if 1 < _index(n) < first])
  names = ["model1_1.1.weight", "model.1.weight", f"model.{first}" + _BLOCK]
  last = f"model1_2.{len(local) + 4}.weight"
  missing = [n for n in [*names, last] if n not in state_dict]
  if missing or num < 1:
    raise ValueError(
      "these are not the weights of a pix2pixHD LocalEnhancer with one local "
      f"enhancer (no {', '.join(missing) or 'down-convolution'}): train it "
      "with netG=local, or check the file"
    )
  channels, input_channels = state_dict[names[0]].shape[:2]
  wide = state_dict[names[2]].shape[0]
  return inpainting.Config(
    feature_channels=wide - state_dict[names[1]].shape[0] * 2**num,
    channels=channels,
    num_downsamples=num,
    num_global_blocks=len(blocks),
    num_local_blocks=len(local),
    input_channels=input_channels,
    output_channels=state_dict[last].shape[0],
  )


def discriminator_config(state_dict: StateDict) -> patch_discriminator.Config:
  """Reads the sizes of a MultiscaleDiscriminator off its arrays.

  Raises:
    ValueError: where the names are not those of one that keeps its features.
  """
  matches = [
    re.fullmatch(r"scale(\d+)_layer(\d+)\.0\.weight", n) for n in state_dict
  ]
  scales = {int(m[1]) for m in matches if m}
  layers = {int(m[2]) for m in matches if m}
  if (
    not scales or len(layers) < 3 or "scale0_layer0.0.weight" not in state_dict
  ):
    raise ValueError(
      "these are not the weights of a pix2pixHD MultiscaleDiscriminator: it "
      "must have been trained with feature matching (scale0_layer0.0.weight)"
    )
  channels, input_channels = state_dict["scale0_layer0.0.weight"].shape[:2]
  widest = max(v.shape[0] for n, v in state_dict.items() if "weight" in n)
  num_layers = len(layers) - 2
  return patch_discriminator.Config(
    input_channels=input_channels,
    channels=channels,
    max_channels=min(widest, channels * 2**num_layers),
    num_layers=num_layers,
    num_scales=len(scales),
  )


_BLOCK = ".conv_block.1.weight"
_GLOBAL_BLOCK = r"model\.\d+\.conv_block\.1\.weight"
_LOCAL_BLOCK = r"model1_2\.\d+\.conv_block\.1\.weight"


def _index(name: str) -> int:
  return int(name.split(".")[1])


def _transposed(weight: np.ndarray) -> np.ndarray:
  """(i, o, h, w) -> (h, w, i, o)."""
  return np.transpose(weight, (2, 3, 0, 1))


def _conv(
  name: str, path: str, transform=weight_map.conv2d
) -> list[weight_map.Rule]:
  name = re.escape(name)
  return [
    weight_map.Rule(name + r"\.weight", path + ".kernel", transform),
    weight_map.Rule(name + r"\.bias", path + ".bias"),
  ]


def _blocks(
  prefix: str, start: int, num: int, path: str
) -> list[weight_map.Rule]:
  rules = []
  for i in range(num):
    name = f"{prefix}.{start + i}.conv_block"
    rules += _conv(f"{name}.1", f"{path}.{i}.first")
    rules += _conv(f"{name}.5", f"{path}.{i}.second")
  return rules


def _generator_table(config: inpainting.Config) -> list[weight_map.Rule]:
  """Returns the rules; indices count pad, conv, norm and relu."""
  num = config.num_downsamples
  rules = _conv("model.1", "coarse_in")
  for i in range(num):
    rules += _conv(f"model.{4 + 3 * i}", f"coarse_down.{i}")
  start, count = 4 + 3 * num, config.num_global_blocks
  rules += _blocks("model", start, count, "coarse_blocks")
  for i in range(num):
    name = f"model.{start + count + 3 * i}"
    rules += _conv(name, f"coarse_up.{i}", _transposed)
  rules += _conv("model1_1.1", "fine_in") + _conv("model1_1.4", "fine_down")
  count = config.num_local_blocks
  rules += _blocks("model1_2", 0, count, "fine_blocks")
  rules += _conv(f"model1_2.{count}", "fine_up", _transposed)
  return rules + _conv(f"model1_2.{count + 4}", "fine_out")


def _discriminator_table(config) -> list[weight_map.Rule]:
  """Reverses the scales: the published 0 is the coarsest, ours the finest."""
  rules = []
  for scale in range(config.num_scales):
    name = f"scale{config.num_scales - 1 - scale}_layer"
    for layer in range(config.num_layers + 2):
      rules += _conv(f"{name}{layer}.0", f"scales.{scale}.layers.{layer}")
  return rules
