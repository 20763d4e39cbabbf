"""What stages take from others' networks and files, ready for use.

e expression coefficients, p coordinates of lip points.
"""

from typing import Any

import numpy as np
from flax import nnx
from jaxtyping import Float

from pir_jax import assets
from pir_jax.face import morphable
from pir_jax.models import vgg, wav2vec2
from pir_jax.pretrained import lpips as lpips_weights
from pir_jax.pretrained import vgg19 as vgg19_weights
from pir_jax.pretrained import wav2vec2 as wav2vec2_weights
from pir_jax.pretrained import whisper as whisper_weights
from pir_jax.runtime import config_io
from pir_jax.stages import expression, inpainting, triplane
from pir_jax.types import FaceSpace, InputError

# log10 power; what Whisper cuts off 8 below a loudest bin of 1, at our level.
WHISPER_FLOOR = -7.0


def speech_encoder(config: expression.Config) -> nnx.Module:
  """Loads the speech encoder of stage 1 that its config names.

  Raises:
    InputError: its file is missing or is another network's.
  """
  if config.encoder == "whisper":
    return whisper_weights.load(
      config.encoder_path or assets.fetch("whisper"),
      layer_index=config.layer_index or None,
      floor=WHISPER_FLOOR,
    )
  encoder = wav2vec2_weights.load(config.encoder_path)
  # The speech is levelled as a whole before it is cut into windows, and a
  # padded window is to give what the same words give alone.
  encoder.config.normalize = False
  encoder.config.padding = "excluded"
  return encoder


def abstract_encoder(config: dict[str, Any]) -> nnx.Module:
  """Returns a tuned wav2vec 2.0 without its parameters, which a state holds."""
  made = config_io.from_dict(wav2vec2.Config, config, "encoder")
  return nnx.eval_shape(lambda: wav2vec2.Wav2Vec2(made, rngs=nnx.Rngs(0)))


def lip_basis(space: FaceSpace) -> Float[np.ndarray, "e p"]:
  """What each coefficient moves the lip points by, head units.

  Raises:
    InputError: the coefficients are of no face model on this machine.
  """
  model = morphable.recorded(space.face_model)
  if space.expression_names != model.expression_names:
    raise InputError(
      f"weights.lips needs a face model and the data's coefficients are none "
      f"of the {model.name}'s: set --config.stage.weights.lips=0."
    )
  basis = np.asarray(model.landmark_expression)[:, morphable.LIPS]
  return basis.reshape(len(basis), -1)


def perceptual(config: triplane.Config | inpainting.Config) -> vgg.Features:
  """VGG of the perceptual losses: the user's VGG19, or the pinned VGG16.

  Raises:
    InputError: its file is missing or is another network's.
  """
  num_layers = config.perceptual_layers
  if isinstance(config, inpainting.Config) and config.vgg19:
    return vgg19_weights.load(config.vgg19, num_layers=num_layers, quick=True)
  return lpips_weights.load(
    assets.fetch("lpips"), "vgg", num_layers=num_layers, quick=True
  )


def lpips_network(kind: str) -> vgg.Features:
  """Loads the pinned network of the LPIPS metric, "alex" or "vgg"."""
  return lpips_weights.load(assets.fetch("lpips"), kind)
