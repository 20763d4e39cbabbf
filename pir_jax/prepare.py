"""Prepares videos for training.

One clip:   python -m pir_jax.prepare --video=me.mp4 --output=data/me
Many clips: python -m pir_jax.prepare --input=videos --output=data/all
HDTF:       python -m pir_jax.prepare --hdtf=HDTF_dataset --input=videos \\
              --output=data/hdtf
Only check: add --check

Detects and tracks the face, fits the parametric head to every frame, and writes
windows, masks, coefficients, sound and report.html to a folder. The same
command resumes a run over many clips that was stopped. The exit code is 1 where
a clip failed, or with --check where one is rejected or cannot be used.
"""

import os

from absl import flags

from pir_jax.data import manifest
from pir_jax.face import masks
from pir_jax.preparation import batch, pipeline, ray, tracking
from pir_jax.runtime import app
from pir_jax.types import InputError

prepare = pipeline.prepare

_VIDEO = flags.DEFINE_string("video", None, "Video of one person talking.")
_INPUT = flags.DEFINE_multi_string(
  "input",
  [],
  "Many videos: a folder, a .txt with one a line, or a video; may be repeated.",
)
_HDTF = flags.DEFINE_string(
  "hdtf", None, "HDTF's annotations: cut these pieces out of --input's videos."
)
_OUTPUT = flags.DEFINE_string(
  "output",
  None,
  "Folder to make, e.g. data/me; for many also gs://, s3:// and the like.",
)
_CHECK = flags.DEFINE_boolean(
  "check", False, "Print the quality of each clip, and write nothing."
)
_WORKERS = flags.DEFINE_integer(
  "workers",
  0,
  "Clips prepared at once; 0 takes as many as cores and memory allow.",
  lower_bound=0,
)
_RAY = flags.DEFINE_string(
  "ray", None, "Address of a Ray cluster to prepare on, or auto."
)
_FACE = flags.DEFINE_string(
  "face",
  "0",
  "Which face, where there are several: 0 is the largest, 1 the next; or a"
  " picture of the person.",
)
_FACE_MODEL = flags.DEFINE_string(
  "face_model", None, "File of `convert face_model`; else the open head."
)
_RESOLUTION = flags.DEFINE_integer(
  "resolution",
  512,
  "Side of the stored window; never more than the source's.",
  lower_bound=16,
)
_MAX_SECONDS = flags.DEFINE_float(
  "max_seconds",
  0.0,
  "Of a longer video take the best so many; 0 takes all.",
  lower_bound=0.0,
)
_OVERWRITE = flags.DEFINE_boolean(
  "overwrite", False, "Replace what an earlier preparation made."
)
_REGION = flags.DEFINE_enum(
  "mask_region",
  masks.Config().region,
  masks.REGIONS,
  "What the network inpaints: the face, or only what lies below the eyes.",
)
_MARGIN = flags.DEFINE_float(
  "mask_margin",
  masks.Config().face_margin,
  "Added all round it, as a share of face height.",
  lower_bound=0.0,
  upper_bound=0.5,
)
_JAW_OPEN = flags.DEFINE_float(
  "mask_jaw_open",
  masks.Config().jaw_open,
  "The widest opening of the mouth that it covers; 1 is the face model's own.",
  lower_bound=0.0,
  upper_bound=2.0,
)


def _settings() -> pipeline.Settings:
  return pipeline.Settings(
    face=tracking.face_of(_FACE.value),
    face_model=_FACE_MODEL.value and os.path.abspath(_FACE_MODEL.value),
    resolution=_RESOLUTION.value,
    masks=masks.Config(
      region=_REGION.value,
      face_margin=_MARGIN.value,
      jaw_open=_JAW_OPEN.value,
    ),
    max_seconds=_MAX_SECONDS.value,
  )


def main() -> None:
  """Runs the command."""
  if _VIDEO.value and _INPUT.value:
    raise InputError("--video and --input exclude each other: set one of them.")
  app.required((_VIDEO, _INPUT), (_OUTPUT, _CHECK))
  if _VIDEO.value and not _CHECK.value:
    options = dict(settings=_settings(), overwrite=_OVERWRITE.value)
    made = prepare(_VIDEO.value, _OUTPUT.value, **options)
    print(manifest.report(made))
    print(f"See {_OUTPUT.value}/report.html; train with --config.data.path.")
    return
  places = _INPUT.value or [_VIDEO.value]
  if _HDTF.value:
    inputs = batch.list_pieces(_HDTF.value, places)
  else:
    inputs = batch.list_videos(places)
  workers = _WORKERS.value or batch.default_workers(len(inputs))
  runner = ray.run(_RAY.value) if _RAY.value else batch.run_locally(workers)
  if _CHECK.value:
    if bad := batch.check_all(inputs, _settings(), runner):
      raise InputError(f"{bad} of {len(inputs)} should not be trained on.")
    return
  failed = batch.prepare_all(
    inputs, _OUTPUT.value, _settings(), runner, overwrite=_OVERWRITE.value
  )
  if failed:
    raise InputError(
      f"{len(failed)} of {len(inputs)} clips failed: their reasons are in"
      f" {_OUTPUT.value}/failed.json; the same command tries them again."
    )


if __name__ == "__main__":
  app.run(main)
