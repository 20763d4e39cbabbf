"""Published wav2vec 2.0 weights (Hugging Face names) into `models.wav2vec2`.

The configs are read by transformers' own classes, from local files only.
"""

import importlib
import json
import os
import pathlib
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx
from safetensors import SafetensorError
from safetensors import numpy as safetensors

from pir_jax.models import scan_layers, wav2vec2
from pir_jax.pretrained import weight_map
from pir_jax.types import SAMPLE_RATE, InputError

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
# The first that is there is read: one file, several files, a pickle.
WEIGHTS = (
  "model.safetensors",
  "model.safetensors.index.json",
  "pytorch_model.bin",
)
_POSITION = "encoder.pos_conv_embed.conv."
# Direction and length of the weight-normed kernel, under both names that
# transformers has given them.
_NORMED = (
  ("weight_v", "weight_g"),
  ("parametrizations.weight.original1", "parametrizations.weight.original0"),
)


def _affine(pattern, path, transform=weight_map.linear):
  return [
    weight_map.Rule(pattern + r"\.weight", path + ".kernel", transform),
    weight_map.Rule(pattern + r"\.bias", path + ".bias"),
  ]


def _norm(pattern, path):
  return [
    weight_map.Rule(pattern + r"\.weight", path + ".scale"),
    weight_map.Rule(pattern + r"\.bias", path + ".bias"),
  ]


def _table():
  conv = r"feature_extractor\.conv_layers\.(\d+)\."
  layer, ours = r"encoder\.layers\.(\d+)\.", r"layers.\1."
  rules = [weight_map.Rule("masked_spec_embed", "mask_embedding")]
  rules += _affine(conv + "conv", r"features.convs.\1", weight_map.conv1d)
  rules += _norm(conv + "layer_norm", r"features.norms.\1")
  rules += _norm(r"feature_projection\.layer_norm", "feature_norm")
  rules += _affine(r"feature_projection\.projection", "projection")
  rules += _affine(
    r"encoder\.pos_conv_embed\.conv", "position_conv", weight_map.conv1d
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
  return [*rules, weight_map.Rule(heads, None)]


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
  """Returns our Config from the dict of a Hugging Face `config.json`.

  What the dict leaves out has the value of transformers' Wav2Vec2Config.

  Raises:
    InputError: an option that this network does not have, values that
      transformers refuses, or no transformers.
  """
  kind = values.get("model_type", "wav2vec2")
  if kind != "wav2vec2":
    raise InputError(f"the config is of a {kind} model: give a wav2vec2 one.")
  published = _imported("transformers").Wav2Vec2Config
  refused = _imported("huggingface_hub.errors").StrictDataclassError
  try:
    theirs = published.from_dict(dict(values))
  except refused as error:
    reason = " ".join(str(error).split())
    raise InputError(f"transformers refuses the config: {reason}") from error
  if theirs.add_adapter or theirs.adapter_attn_dim:
    raise InputError(
      "the config has adapters, which this encoder lacks: take a plain model."
    )
  for name in ("hidden_act", "feat_extract_activation"):
    if getattr(theirs, name) != "gelu":
      raise InputError(
        f"{name}={getattr(theirs, name)} is not supported: only gelu is."
      )
  augment = theirs.apply_spec_augment
  return wav2vec2.Config(
    conv_sizes=tuple(theirs.conv_dim),
    conv_kernels=tuple(theirs.conv_kernel),
    conv_strides=tuple(theirs.conv_stride),
    conv_bias=theirs.conv_bias,
    feature_norm=theirs.feat_extract_norm,
    pre_norm=theirs.do_stable_layer_norm,
    width=theirs.hidden_size,
    num_layers=theirs.num_hidden_layers,
    num_heads=theirs.num_attention_heads,
    ffn=theirs.intermediate_size,
    position_kernel=theirs.num_conv_pos_embeddings,
    position_groups=theirs.num_conv_pos_embedding_groups,
    epsilon=theirs.layer_norm_eps,
    feature_dropout=theirs.feat_proj_dropout,
    hidden_dropout=theirs.hidden_dropout,
    attention_dropout=theirs.attention_dropout,
    activation_dropout=theirs.activation_dropout,
    layer_drop=theirs.layerdrop,
    mask_time=theirs.mask_time_prob if augment else 0.0,
    mask_time_span=theirs.mask_time_length,
    mask_time_least=theirs.mask_time_min_masks,
    mask_feature=theirs.mask_feature_prob if augment else 0.0,
    mask_feature_span=theirs.mask_feature_length,
    mask_feature_least=theirs.mask_feature_min_masks,
  )


def read_config(folder: pathlib.Path) -> wav2vec2.Config:
  """Reads the Config of a folder, from its two JSON files.

  Without `preprocessor_config.json` rows are normalised and padding is ours.
  With it both are the published ones: batches are masked if it asks for it,
  otherwise padding is silence.

  Raises:
    InputError: as `config_from_json`, or another sampling rate than 16 kHz.
  """
  config = config_from_json(_read_json(folder / CONFIG))
  config.normalize = True
  if not (folder / PREPROCESSOR).is_file():
    return config
  values = _read_json(folder / PREPROCESSOR)
  theirs = _imported("transformers").Wav2Vec2FeatureExtractor.from_dict(values)
  if theirs.sampling_rate != SAMPLE_RATE:
    raise InputError(
      f"{folder} is for speech at {theirs.sampling_rate} Hz: take a model for "
      f"{SAMPLE_RATE} Hz."
    )
  config.normalize = bool(theirs.do_normalize)
  config.padding = "masked" if theirs.return_attention_mask else "silence"
  return config


def from_torch(
  state_dict: Mapping[str, Any],
  config: wav2vec2.Config | Mapping[str, Any] | Any,
) -> wav2vec2.Wav2Vec2:
  """Builds the encoder from a state dict with Hugging Face's names.

  Args:
    state_dict: published name -> array, or anything numpy reads as one. Names
      may begin with `wav2vec2.`, as in files that hold a head too.
    config: ours, the dict of a `config.json`, or transformers' own.

  Raises:
    InputError: naming every missing, unused or mis-shaped weight.
  """
  weights = {
    name.removeprefix("wav2vec2."): np.asarray(array)
    for name, array in state_dict.items()
  }
  if not isinstance(config, wav2vec2.Config):
    values = config if isinstance(config, Mapping) else config.to_dict()
    config = config_from_json(values)
  model = wav2vec2.Wav2Vec2(config, rngs=nnx.Rngs(0))
  # One by one, as the files name them.
  model.layers = nnx.List(scan_layers.unstack(model.layers, config.num_layers))
  # A model made without SpecAugment has no embedding for it.
  weight_map.apply(
    _table(),
    _fold_position(weights),
    model,
    keep=() if config.mask_time else ("mask_embedding",),
  )
  model.layers = scan_layers.stack(list(model.layers))
  return model


def find(name_or_path: str) -> pathlib.Path:
  """Finds the folder with `config.json` and one of the WEIGHTS.

  A folder is taken as it is; a name such as facebook/wav2vec2-large-960h is
  looked up in the Hugging Face cache ($HF_HUB_CACHE, $HF_HOME/hub or
  ~/.cache/huggingface/hub). Nothing is downloaded.

  Raises:
    InputError: a file is absent; with where it comes from and where it goes.
  """
  folder = pathlib.Path(name_or_path).expanduser()
  if folder.is_dir():
    missing = _missing(folder)
    if missing:
      raise InputError(
        f"{folder} has no {' and no '.join(missing)}: save the model there "
        "with transformers' save_pretrained."
      )
    return folder
  home = pathlib.Path(
    os.environ.get("HF_HOME", "~/.cache/huggingface")
  ).expanduser()
  hub = pathlib.Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
  model = hub / ("models--" + name_or_path.replace("/", "--"))
  for snapshot in sorted(model.glob("snapshots/*")):
    if not _missing(snapshot):
      return snapshot
  raise InputError(
    f"no {CONFIG} and {WEIGHTS[0]} of {name_or_path} in {model}/snapshots: "
    f"fetch them from https://huggingface.co/{name_or_path} into that cache "
    f"(`hf download {name_or_path}`) or give the path of a folder that holds "
    "them."
  )


def load(name_or_path: str) -> wav2vec2.Wav2Vec2:
  """Loads the encoder of a folder or of a name in the Hugging Face cache.

  Raises:
    InputError: a file is absent or damaged, the model is of another kind, a
      package that reads it is not installed, or the weights do not fit their
      config.
  """
  folder = find(name_or_path)
  config = read_config(folder)
  return from_torch(_read_weights(folder), config)


def _missing(folder: pathlib.Path) -> list[str]:
  """Returns what a folder lacks, safetensors for all kinds of weights."""
  lacks = [] if (folder / CONFIG).is_file() else [CONFIG]
  if not any((folder / name).is_file() for name in WEIGHTS):
    lacks.append(WEIGHTS[0])
  return lacks


def _read_json(path: pathlib.Path) -> dict[str, Any]:
  try:
    values = json.loads(path.read_text())
  except ValueError as error:
    raise InputError(f"{path} is not JSON: fetch it anew.") from error
  if not isinstance(values, dict):
    raise InputError(f"{path} holds no JSON object: fetch it anew.")
  return values


def _read_weights(folder: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads the state dict of the first of WEIGHTS that exists."""
  single, index, pickled = (folder / name for name in WEIGHTS)
  if single.is_file():
    return _read_safetensors(single)
  if not index.is_file():
    return _read_pickle(pickled)
  names = sorted(set(_read_json(index).get("weight_map", {}).values()))
  absent = [name for name in names if not (folder / name).is_file()]
  if absent or not names:
    raise InputError(
      f"{index} names {', '.join(absent) or 'no files'}, not in {folder}: "
      "fetch the model anew."
    )
  weights = {}
  for name in names:
    weights |= _read_safetensors(folder / name)
  return weights


def _read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    return safetensors.load_file(path)
  except SafetensorError as error:
    raise InputError(f"{path} is damaged ({error}): fetch it anew.") from error


def _read_pickle(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads a state dict that only torch can; no code in it is run."""
  try:
    # By name, so that nothing else in this package can lean on torch.
    torch = importlib.import_module("torch")
  except ImportError as error:
    raise InputError(
      f"{path} can only be read with torch: `pip install torch`, or save the "
      f"model as {WEIGHTS[0]} where torch is installed."
    ) from error
  try:
    weights = torch.load(path, map_location="cpu", weights_only=True)
  except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
    raise InputError(
      f"{path} is damaged or no state dict: fetch it anew."
    ) from error
  return {name: value.float().numpy() for name, value in weights.items()}


def _imported(name: str) -> Any:
  """Imports the package transformers or one it needs, on demand."""
  # Its advice to install PyTorch is not for those who come here.
  os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise InputError(
      "wav2vec 2.0's configs are read by transformers, which is not installed: "
      "`pip install 'transformers>=5.23'`, or pir_jax with its extra wav2vec2."
    ) from error
