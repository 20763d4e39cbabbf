"""A face model as it was published, read whole and written as ours."""

import pathlib

from pir_jax.face import morphable
from pir_jax.pretrained.heads import bfm, face_models, flame, ict
from pir_jax.types import InputError

KINDS = ("bfm", "ict", "flame")


def convert(
  kind: str,
  source: str | pathlib.Path,
  output: str | pathlib.Path,
  landmarks: str | pathlib.Path = "",
) -> face_models.Imported:
  """Reads a published face model and writes ours.

  Raises:
    InputError: a file is not what it should be.
  """
  source, output = pathlib.Path(source), pathlib.Path(output)
  for path in filter(None, (source, landmarks and pathlib.Path(landmarks))):
    if not path.exists():
      raise InputError(f"{path} is not there.")
    if path.is_dir() != (kind == "ict"):
      sort = "a folder" if kind == "ict" else "a file"
      raise InputError(f"{path} is not {sort}, as --kind={kind} wants.")
  if output.suffix != ".npz" or not output.parent.is_dir():
    raise InputError(
      f"{output} must end in .npz and lie in a folder that exists."
    )
  head = morphable.load()
  if kind == "bfm":
    raw = bfm.read(source)
  elif kind == "ict":
    raw = ict.read(source, head)
  else:
    raw = flame.read(source, pathlib.Path(landmarks) if landmarks else None)
  try:
    made = face_models.finish(raw, head)
  except InputError as error:
    raise InputError(f"{source}: {error}.") from error
  return made._replace(model=morphable.save(made.model, output))


def report(made: face_models.Imported) -> str:
  """Formats what a person wants to know of it, in a few lines."""
  model = made.model
  return "\n".join(
    [
      f"{model.name}: {len(model.mean)} vertices, "
      f"{len(model.identity_basis)} identity modes, "
      f"{len(model.expression_basis)} expression units",
      f"{model.landmark_valid.sum()} of {len(model.landmark_valid)} landmarks "
      f"have a place on it; the open head, laid over it, is "
      f"{made.distance:.2f} mm away (RMS)",
    ]
  )
