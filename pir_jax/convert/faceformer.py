"""Published FaceFormer decoder weights into `models.faceformer`."""

from collections.abc import Mapping

import numpy as np
from flax import nnx

from pir_jax.convert import tables
from pir_jax.models import faceformer

_LAYER = r"transformer_decoder\.layers\.0\."
_ATTENTION = {
  "self_attn": "layer.self_attention",
  "multihead_attn": "layer.cross_attention",
}


def _linear(pattern, path):
  """Rules of one linear map."""
  return [
    tables.Rule(pattern + r"\.weight", path + ".kernel", tables.linear),
    tables.Rule(pattern + r"\.bias", path + ".bias"),
  ]


def _table():
  """The rules; the stacked q, k, v are split before (`_split`)."""
  rules = []
  for name, path in _ATTENTION.items():
    rules += _linear(rf"{_LAYER}{name}\.(query|key|value)", path + r".\1")
    rules += _linear(rf"{_LAYER}{name}\.out_proj", path + ".out")
  for number in range(3):
    name, path = rf"{_LAYER}norm{number + 1}", f"layer.norms.{number}"
    rules += [
      tables.Rule(name + r"\.weight", path + ".scale"),
      tables.Rule(name + r"\.bias", path + ".bias"),
    ]
  rules += _linear(_LAYER + "linear1", "layer.expand")
  rules += _linear(_LAYER + "linear2", "layer.contract")
  rules += _linear("audio_feature_map", "audio_map")
  rules += _linear("obj_vector", "style_map")
  rules += _linear("vertice_map", "expression_map")
  rules += _linear("vertice_map_r", "expression_out")
  # Tables that we compute, and the speech encoder, which has its own file.
  rules.append(tables.Rule(r"(PPE\.pe|biased_mask|audio_encoder\..*)", None))
  return rules


def _split(state_dict):
  """Takes apart the query, key and value maps that PyTorch stacks."""
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


def from_torch(
  state_dict: Mapping[str, np.ndarray], config: faceformer.Config
) -> faceformer.ExpressionDecoder:
  """Builds the decoder from a state dict with FaceFormer's names.

  Raises:
    ValueError: naming every missing, unused or mis-shaped weight.
  """
  model = faceformer.ExpressionDecoder(config, rngs=nnx.Rngs(0))
  tables.apply(_table(), _split(state_dict), model)
  return model
