"""Published wav2vec 2.0 weights (Hugging Face names) into `models.wav2vec2`."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx
from safetensors import numpy as safetensors

from pir_jax.convert import tables
from pir_jax.models import wav2vec2
from pir_jax.types import InputError

_POSITION = "encoder.pos_conv_embed.conv."
# Direction and length of the weight-normed kernel, under both names that
# transformers has given them.
_NORMED = (
  ("weight_v", "weight_g"),
  ("parametrizations.weight.original1", "parametrizations.weight.original0"),
)


def _affine(pattern, path, transform=tables.linear):
  return [
    tables.Rule(pattern + r"\.weight", path + ".kernel", transform),
    tables.Rule(pattern + r"\.bias", path + ".bias"),
  ]


def _norm(pattern, path):
  return [
    tables.Rule(pattern + r"\.weight", path + ".scale"),
    tables.Rule(pattern + r"\.bias", path + ".bias"),
  ]


def _table():
  conv = r"feature_extractor\.conv_layers\.(\d+)\."
  layer, ours = r"encoder\.layers\.(\d+)\.", r"layers.\1."
  rules = [tables.Rule("masked_spec_embed", "mask_embedding")]
  rules += _affine(conv + "conv", r"features.convs.\1", tables.conv1d)
  rules += _norm(conv + "layer_norm", r"features.norms.\1")
  rules += _norm(r"feature_projection\.layer_norm", "feature_norm")
  rules += _affine(r"feature_projection\.projection", "projection")
  rules += _affine(
    r"encoder\.pos_conv_embed\.conv", "position_conv", tables.conv1d
  )
  rules += _norm(r"encoder\.layer_norm", "norm")
  for name in ("query", "key", "value", "out"):
    short = name if name == "out" else name[0]
    rules += _affine(rf"{layer}attention\.{short}_proj", ours + name)
  rules += _norm(layer + "layer_norm", ours + "attention_norm")
  rules += _affine(layer + r"feed_forward\.intermediate_dense", ours + "expand")
  rules += _affine(layer + r"feed_forward\.output_dense", ours + "contract")
  rules += _norm(layer + "final_layer_norm", ours + "ffn_norm")
  # Heads of pre-training and of recognition, which we do not use.
  heads = r"(lm_head|quantizer|project_q|project_hid)\..*"
  return [*rules, tables.Rule(heads, None)]


def _fold_position(state_dict):
  """Multiplies out weight norm: g v / |v|, |v| over all but the last axis."""
  state_dict = dict(state_dict)
  for direction, length in _NORMED:
    if _POSITION + direction in state_dict and _POSITION + length in state_dict:
      v = state_dict.pop(_POSITION + direction).astype(np.float64)
      g = state_dict.pop(_POSITION + length).astype(np.float64)
      norm = np.sqrt(np.sum(v**2, axis=(0, 1), keepdims=True))
      state_dict[_POSITION + "weight"] = (g * v / norm).astype(np.float32)
  return state_dict


def config_from_json(values: Mapping[str, Any]) -> wav2vec2.Config:
  """Our Config from the dict of a Hugging Face `config.json`.

  Raises:
    InputError: an option that this network does not have.
  """
  if values.get("model_type", "wav2vec2") != "wav2vec2":
    raise InputError(
      f"the config is of a {values['model_type']} model: give a wav2vec2 one."
    )
  if values.get("add_adapter") or values.get("adapter_attn_dim"):
    raise InputError(
      "the config has adapters, which this encoder lacks: take a plain model."
    )
  for name in ("hidden_act", "feat_extract_activation"):
    if values.get(name, "gelu") != "gelu":
      raise InputError(f"{name}={values[name]} is not supported: only gelu is.")
  augment = values.get("apply_spec_augment", True)
  ours = {
    "conv_sizes": ("conv_dim", (512,) * 7),
    "conv_kernels": ("conv_kernel", (10, 3, 3, 3, 3, 2, 2)),
    "conv_strides": ("conv_stride", (5, 2, 2, 2, 2, 2, 2)),
    "conv_bias": ("conv_bias", False),
    "feature_norm": ("feat_extract_norm", "group"),
    "pre_norm": ("do_stable_layer_norm", False),
    "width": ("hidden_size", 768),
    "num_layers": ("num_hidden_layers", 12),
    "num_heads": ("num_attention_heads", 12),
    "ffn": ("intermediate_size", 3072),
    "position_kernel": ("num_conv_pos_embeddings", 128),
    "position_groups": ("num_conv_pos_embedding_groups", 16),
    "epsilon": ("layer_norm_eps", 1e-5),
    "feature_dropout": ("feat_proj_dropout", 0.0),
    "hidden_dropout": ("hidden_dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.1),
    "activation_dropout": ("activation_dropout", 0.1),
    "layer_drop": ("layerdrop", 0.1),
    "mask_time": ("mask_time_prob", 0.05),
    "mask_time_span": ("mask_time_length", 10),
    "mask_feature": ("mask_feature_prob", 0.0),
    "mask_feature_span": ("mask_feature_length", 10),
  }
  fields = {to: values.get(name, other) for to, (name, other) in ours.items()}
  for name in ("conv_sizes", "conv_kernels", "conv_strides"):
    fields[name] = tuple(fields[name])
  if not augment:
    fields["mask_time"] = fields["mask_feature"] = 0.0
  return wav2vec2.Config(**fields)


def from_torch(
  state_dict: Mapping[str, np.ndarray], config: wav2vec2.Config
) -> wav2vec2.Wav2Vec2:
  """Builds the encoder from a state dict with Hugging Face's names.

  The names may begin with `wav2vec2.`, as in files that hold a head too.

  Raises:
    ValueError: naming every missing, unused or mis-shaped weight.
  """
  weights = {
    name.removeprefix("wav2vec2."): array for name, array in state_dict.items()
  }
  model = wav2vec2.Wav2Vec2(config, rngs=nnx.Rngs(0))
  # A model trained without SpecAugment has no embedding for it.
  masked = config.mask_time or config.mask_feature
  tables.apply(
    _table(),
    _fold_position(weights),
    model,
    keep=() if masked else ("mask_embedding",),
  )
  return model


def find(name_or_path: str) -> pathlib.Path:
  """The folder with `config.json` and `model.safetensors`.

  A folder is taken as it is; a name such as facebook/wav2vec2-large-960h is
  looked up in the Hugging Face cache ($HF_HUB_CACHE, $HF_HOME/hub or
  ~/.cache/huggingface/hub). Nothing is downloaded.

  Raises:
    InputError: a file is absent; says where it comes from and where it goes.
  """
  files = ("config.json", "model.safetensors")
  folder = pathlib.Path(name_or_path).expanduser()
  if folder.is_dir():
    missing = [name for name in files if not (folder / name).is_file()]
    if missing:
      raise InputError(
        f"{folder} has no {' and no '.join(missing)}: save the model there "
        "with transformers' save_pretrained(..., safe_serialization=True)."
      )
    return folder
  home = pathlib.Path(
    os.environ.get("HF_HOME", "~/.cache/huggingface")
  ).expanduser()
  hub = pathlib.Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
  model = hub / ("models--" + name_or_path.replace("/", "--"))
  for snapshot in sorted(model.glob("snapshots/*")):
    if all((snapshot / name).is_file() for name in files):
      return snapshot
  raise InputError(
    f"no {' and '.join(files)} of {name_or_path} in {model}/snapshots: fetch "
    f"them from https://huggingface.co/{name_or_path} into that cache (`hf "
    f"download {name_or_path}`) or give the path of a folder that holds them."
  )


def load(name_or_path: str) -> wav2vec2.Wav2Vec2:
  """The encoder of a folder or of a name in the Hugging Face cache.

  Raises:
    InputError: a file is absent, or the model is of another kind.
    ValueError: the weights do not fit their config.
  """
  folder = find(name_or_path)
  values = json.loads((folder / "config.json").read_text())
  weights = safetensors.load_file(folder / "model.safetensors")
  return from_torch(weights, config_from_json(values))
