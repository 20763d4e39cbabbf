"""What the survival tests train: every part of stage 1, as small as it goes.

The speech encoder is random, so that nothing is downloaded.
"""

from flax import nnx

from pir_jax.data import speech_augmentation
from pir_jax.models import faceformer, whisper
from pir_jax.runs import frozen_networks
from pir_jax.runs.experiment import Data, Experiment
from pir_jax.runtime import loop, optim
from pir_jax.stages import expression


def get_config(variant: str = "") -> Experiment:
  """The one there is."""
  del variant
  frozen_networks.speech_encoder = lambda config: whisper.WhisperEncoder(
    whisper.Config(width=64, num_heads=2, num_layers=1, ffn=64),
    rngs=nnx.Rngs(0),
  )
  return Experiment(
    stage=expression.Config(
      model=faceformer.Config(width=32, ffn=64, dropout=0.1, context=20),
      encoder="whisper",
      encoder_path="",
      weights=expression.Weights(lips=0.0),
      optim=optim.Config(learning_rate=1e-3),
      window=20,
      margin=5,
    ),
    data=Data(
      batch_size=2,
      num_frames=20,
      pauses=speech_augmentation.Config(share=0.3, silent=0.05),
    ),
    loop=loop.Config(
      num_steps=600, log_every=20, save_every=3, evaluate_every=100
    ),
  )
