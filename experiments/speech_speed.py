"""How fast speech becomes expressions, beside PyTorch's speech encoder.

Command: python -m experiments.speech_speed
Weights are random: the time does not depend on them. The rows of PyTorch need
torch and transformers (pip install torch transformers).
Hardware: two CPU cores, float32. Time: two to five minutes.
"""

import importlib.util
import os
import statistics
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from flax import nnx

from pir_jax.models import faceformer, wav2vec2
from pir_jax.types import SAMPLE_RATE

_SECONDS = flags.DEFINE_integer("seconds", 10, "Of speech to encode.", 1)
_FRAMES = flags.DEFINE_integer("frames", 500, "To generate.", 1)
_REPEATS = flags.DEFINE_integer("repeats", 5, "The median is printed.", 1)
FAMILIES = ("group", "layer")  # wav2vec2-large and -large-lv60.


def compiled(
  model: nnx.Module, function: Callable, *arrays: np.ndarray
) -> tuple[Callable[[], None], float]:
  """function(model, *arrays), ready to run, and the seconds to compile it."""
  graphdef, state = nnx.split(model)
  arrays = [jnp.asarray(array) for array in arrays]
  start = time.perf_counter()
  run = (
    jax.jit(lambda s, *a: function(nnx.merge(graphdef, s), *a))
    .lower(state, *arrays)
    .compile()
  )
  seconds = time.perf_counter() - start
  return lambda: jax.block_until_ready(run(state, *arrays)), seconds


def medians(runs: Sequence[Callable[[], None]]) -> list[float]:
  """Median seconds of each; they take turns, so that a busy spell hits all."""
  for run in runs:
    run()
  times = [[] for _ in runs]
  for _ in range(_REPEATS.value):
    for run, seconds in zip(runs, times, strict=True):
      start = time.perf_counter()
      run()
      seconds.append(time.perf_counter() - start)
  return [statistics.median(seconds) for seconds in times]


def published(family: str, waveform: np.ndarray) -> Callable[[], None]:
  """One run of wav2vec2-large as transformers has it, on the same cores."""
  import torch
  import transformers

  torch.set_num_threads(len(os.sched_getaffinity(0)))
  layer = family == "layer"
  config = transformers.Wav2Vec2Config(
    hidden_size=1024,
    num_hidden_layers=24,
    num_attention_heads=16,
    intermediate_size=4096,
    feat_extract_norm=family,
    do_stable_layer_norm=layer,
    conv_bias=layer,
  )
  model = transformers.Wav2Vec2Model(config).eval()
  inputs = torch.from_numpy(waveform)

  def run():
    with torch.inference_mode():
      model(inputs)

  return run


def encoder_rows(family: str) -> list[tuple[str, float, float]]:
  """(name, seconds, seconds to compile) of ours and of PyTorch's."""
  random = np.random.default_rng(0)
  shape = 1, _SECONDS.value * SAMPLE_RATE
  waveform = random.standard_normal(shape, np.float32)
  layer = family == "layer"
  config = wav2vec2.Config(feature_norm=family, pre_norm=layer, conv_bias=layer)
  model = wav2vec2.Wav2Vec2(config, rngs=nnx.Rngs(0))
  ours, compile_time = compiled(model, lambda m, x: m(x), waveform)
  name = f"wav2vec2-large ({family} norm), {_SECONDS.value} s of speech"
  runs = [ours]
  missing = [
    package
    for package in ("torch", "transformers")
    if importlib.util.find_spec(package) is None
  ]
  if not missing:
    runs.append(published(family, waveform))
  seconds = medians(runs)
  rows = [(f"{name}, ours", seconds[0], compile_time)]
  if missing:
    print(f"no row of PyTorch: {' and '.join(missing)} not installed")
  else:
    rows.append((f"{name}, PyTorch", seconds[1], 0.0))
    rows.append((f"{name}, ours / PyTorch", seconds[0] / seconds[1], 0.0))
  return rows


def decoder_row() -> tuple[str, float, float]:
  """The same of the autoregressive decoder, one token a frame."""
  config = faceformer.Config()
  model = faceformer.ExpressionDecoder(config, rngs=nnx.Rngs(0))
  random = np.random.default_rng(0)
  audio = random.standard_normal(
    (1, _FRAMES.value, config.audio_size), np.float32
  )
  identity = random.standard_normal((1, config.identity_size), np.float32)
  run, compile_time = compiled(
    model, lambda m, a, i: m.generate(a, i), audio, identity
  )
  name = f"ExpressionDecoder.generate, {_FRAMES.value} frames, d={config.width}"
  return name, medians([run])[0], compile_time


def main(argv: Sequence[str]) -> None:
  """Prints the table."""
  if len(argv) > 1:
    raise app.UsageError(f"unexpected argument {argv[1]!r}")
  print("random weights, float32, batch of one")
  rows = [decoder_row()]
  for family in FAMILIES:
    rows += encoder_rows(family)
  width = max(len(name) for name, *_ in rows)
  print(f"{'':{width}}  seconds  to compile")
  for name, seconds, compile_time in rows:
    last = f"{compile_time:10.1f}" if compile_time else ""
    print(f"{name:{width}}  {seconds:7.2f}  {last}".rstrip())


if __name__ == "__main__":
  app.run(main)
