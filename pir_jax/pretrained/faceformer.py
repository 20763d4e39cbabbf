"""Published FaceFormer decoder weights into `models.faceformer`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx

from pir_jax.models import faceformer
from pir_jax.pretrained import weight_map

_LAYER = r"transformer_decoder\.layers\.0\."
_ATTENTION = {
  "self_attn": "layer.self_attention",
  "multihead_attn": "layer.cross_attention",
}


def _linear(pattern, path):
  """Returns the rules of one linear map."""
  return [
    weight_map.Rule(pattern + r"\.weight", path + ".kernel", weight_map.linear),
    weight_map.Rule(pattern + r"\.bias", path + ".bias"),
  ]


def _table():
  """Returns the rules; the stacked q, k, v are split before (`_split`)."""
  rules = []
  for name, path in _ATTENTION.items():
    rules += _linear(rf"{_LAYER}{name}\.(query|key|value)", path + r".\1")
    rules += _linear(rf"{_LAYER}{name}\.out_proj", path + ".out")
  for number in range(3):
    name, path = rf"{_LAYER}norm{number + 1}", f"layer.norms.{number}"
    rules += [
      weight_map.Rule(name + r"\.weight", path + ".scale"),
      weight_map.Rule(name + r"\.bias", path + ".bias"),
    ]
  rules += _linear(_LAYER + "linear1", "layer.expand")
  rules += _linear(_LAYER + "linear2", "layer.contract")
  rules += _linear("audio_feature_map", "audio_map")
  rules += _linear("obj_vector", "style_map")
  rules += _linear("vertice_map", "expression_map")
  rules += _linear("vertice_map_r", "expression_out")
  # Tables that we compute, and the speech encoder, which has its own file.
  rules.append(
    weight_map.Rule(r"(PPE\.pe|biased_mask|audio_encoder\..*)", None)
  )
  return rules


def _split(state_dict):
  """Splits the query, key and value maps that PyTorch stacks."""
  parts = {}
  for name, array in state_dict.items():
    if "in_proj_" not in name:
      parts[name] = array
      continue
    stem, kind = name.split("in_proj_")
    for part, piece in zip(
      ("query", "key", "value"), np.split(array, 3), strict=True
    ):
      parts[f"{stem}{part}.{kind}"] = piece
  return parts


# Where each size of the Config stands: a map's name and an axis of its weight.
_SIZES = {
  "identity_size": ("obj_vector", 1),
  "expression_size": ("vertice_map", 1),
  "audio_size": ("audio_feature_map", 1),
  "width": ("audio_feature_map", 0),
  "ffn": ("transformer_decoder.layers.0.linear1", 0),
}


def _infer(state_dict):
  """Returns the Config: a state dict's shapes, FaceFormer's heads, period."""
  config = faceformer.Config(num_heads=4, period=25)
  for field, (name, axis) in _SIZES.items():
    shape = np.shape(state_dict.get(f"{name}.weight"))
    # Without it the size is any: the table names the weight as wrong.
    if len(shape) == 2:
      setattr(config, field, shape[axis])
  return config


def from_torch(
  state_dict: Mapping[str, Any], config: faceformer.Config | None = None
) -> faceformer.ExpressionDecoder:
  """Builds the decoder from a state dict with FaceFormer's names.

  Args:
    state_dict: published name -> array, or anything numpy reads as one.
    config: None reads the sizes from the shapes and takes FaceFormer's 4 heads
      and period of 25 frames, which no shape shows.

  Raises:
    InputError: naming every missing, unused or mis-shaped weight.
  """
  state_dict = {name: np.asarray(x) for name, x in state_dict.items()}
  if config is None:
    config = _infer(state_dict)
  model = faceformer.ExpressionDecoder(config, rngs=nnx.Rngs(0))
  weight_map.apply(_table(), _split(state_dict), model)
  return model
