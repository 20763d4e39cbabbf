"""Times a network on this machine: `python -m pir_jax.benchmark inpainting`.

Each part of a frame, or of a window of speech, then the whole, with random
weights, on which the time does not depend. Needs neither data nor published
weights. `inpainting` adds a whole reenactment, from the source file to the new
one, per frame. `live` times whole reenactments end to end, and how late frames
come of speech that comes in real time.
"""

import functools
import pathlib
import runpy
from collections.abc import Iterator

import jax
from absl import flags
from ml_collections import config_flags

from pir_jax.profiling import expression as expression_lib
from pir_jax.profiling import inpainting as inpainting_lib
from pir_jax.profiling import live, parts, pipeline
from pir_jax.profiling import triplane as triplane_lib
from pir_jax.runs.experiment import STAGES, Experiment, checked
from pir_jax.runtime import app, loop
from pir_jax.stages import triplane

TOPICS = ("expression", "triplane", "inpainting", "live")
# Of the loop only its length is used, by a schedule.
_PAPER = functools.partial(Experiment, loop=loop.Config(num_steps=1000))
# Seconds a frame that the pipeline takes from the table.
_NETWORKS = {
  "feature image": inpainting_lib.FEATURES,
  "inpainting": inpainting_lib.GENERATOR,
}
_CONFIG = config_flags.DEFINE_config_file(
  "config",
  help_string="Experiment file with the sizes, such as "
  "experiments/triplane.py:demo; without one, the paper's. For the other "
  "stages, inpainting takes the files beside it, of the same variant.",
)
_BATCH = flags.DEFINE_integer("batch", 1, "Frames at once.", 1)
_DTYPE = flags.DEFINE_enum(
  "dtype", None, ["float32", "bfloat16"], "Of the convolutions."
)
_REPEATS = flags.DEFINE_integer("repeats", 5, "The median is printed.", 1)
_TRAINING = flags.DEFINE_boolean(
  "training", False, "Times gradients and a whole training step as well."
)
_PEAK = flags.DEFINE_float(
  "peak_tflops", None, "Of the device at this dtype; a CPU's is measured.", 0
)
_PIPELINE = flags.DEFINE_boolean(
  "pipeline", True, "Inpainting: times a whole reenactment as well."
)
_MODEL = flags.DEFINE_string(
  "model", None, "Live: a trained person; else random weights of --config."
)
_VIDEO = flags.DEFINE_string("video", None, "Live: of that person.")
_SECONDS = flags.DEFINE_float(
  "seconds", 10.0, "Live: of speech to a file, and six times that as it comes."
)


def _experiment(topic: str) -> Experiment:
  holder = flags.FLAGS["config"]
  if not holder.present:
    return _PAPER(stage=STAGES[topic]())
  return checked(_CONFIG.value, holder.config_filename, topic)


def _beside(topic: str) -> Experiment:
  """Returns another stage's, of the file beside --config if there is one."""
  holder = flags.FLAGS["config"]
  source = holder.config_filename if holder.present else topic
  name, _, variant = source.partition(":")
  path = pathlib.Path(name).with_name(f"{topic}.py")
  if not holder.present or not path.is_file():
    return _PAPER(stage=STAGES[topic]())
  return runpy.run_path(str(path))["get_config"](variant)


def _rows(
  topic: str, experiment: Experiment, renderer: triplane.Config
) -> Iterator[parts.Row]:
  options = _REPEATS.value, _TRAINING.value
  if topic == "expression":
    return expression_lib.measure(experiment, *options)
  if topic == "triplane":
    return triplane_lib.measure(experiment, *options)
  return inpainting_lib.measure(
    experiment, parts.typed(renderer, _DTYPE.value).model, *options
  )


def main(topic: str) -> None:
  """Times one network, or all of them in use."""
  if topic == "live":
    person = app.required(_MODEL, _VIDEO) if _MODEL.value else None
    experiments = [_beside(name) for name in TOPICS[:3]]
    for line in live.lines(person, experiments, _SECONDS.value, _REPEATS.value):
      print(line, flush=True)
    return
  experiment = _experiment(topic)
  renderer = experiment if topic == "triplane" else _beside("triplane")
  experiment = parts.sized(
    experiment, renderer.stage, _BATCH.value, _DTYPE.value
  )
  # Seconds of a compilation, not of reading the last one.
  jax.config.update("jax_enable_compilation_cache", False)
  dtype, peak = experiment.stage.dtype, _PEAK.value or parts.cpu_tflops()
  print(parts.title(topic, dtype, _BATCH.value, _REPEATS.value))
  print(parts.header(peak), flush=True)
  seconds = {}
  for row in _rows(topic, experiment, renderer.stage):
    print(parts.line(row, peak), flush=True)
    seconds[row.name] = row.timing.median / _BATCH.value
  wholes = set()  # Rows that are images.
  if topic != "expression":
    wholes = {*triplane_lib.WHOLES, *inpainting_lib.WHOLES}
  images = {name: seconds[name] for name in seconds if name in wholes}
  print(parts.notes(images), flush=True)
  if topic == "inpainting" and _PIPELINE.value:
    networks = {name: seconds[part] for name, part in _NETWORKS.items()}
    stages = pipeline.measure(
      _beside("expression"),
      experiment.data.resolution,
      networks,
      _REPEATS.value,
    )
    for line in pipeline.as_lines(stages):
      print(line, flush=True)


if __name__ == "__main__":
  app.run(main, TOPICS, continues=False)
