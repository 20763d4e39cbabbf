"""One process of cluster_test: `pir_jax.train` with networks of few numbers."""

from flax import nnx

from pir_jax import train
from pir_jax.models import faceformer, whisper
from pir_jax.runs import frozen_networks
from pir_jax.runs.experiment import Data, Experiment
from pir_jax.runtime import app, loop, optim, sharding
from pir_jax.stages import expression


def get_config(variant: str = "") -> Experiment:
  """A small expression stage; every array of it is large enough to split."""
  del variant
  return Experiment(
    stage=expression.Config(
      model=faceformer.Config(
        width=16, ffn=24, num_heads=2, dropout=0.1, context=12
      ),
      optim=optim.Config(learning_rate=3e-3),
      encoder="whisper",
      window=12,
      margin=3,
      ema_decay=0.5,
      weights=expression.Weights(lips=0.0),
    ),
    data=Data(batch_size=8, num_frames=12),
    loop=loop.Config(
      num_steps=60, log_every=1, save_every=10, evaluate_every=60
    ),
    sharding=sharding.Config(min_size=2),
  )


def _encoder(config: expression.Config) -> nnx.Module:
  del config
  small = whisper.Config(width=12, num_heads=2, num_layers=1, ffn=16)
  return whisper.WhisperEncoder(small, rngs=nnx.Rngs(0))


if __name__ == "__main__":
  frozen_networks.speech_encoder = _encoder  # Nothing is downloaded.
  app.run(train.main)
