"""Fits and measures `face/resemblance`: whether two clips show one person.

Command: python -m experiments.resemblance --data=data/people
  --people=people.tsv
Hardware: a CPU core; three minutes. Writes pir_jax/face/resemblance.npz, of all
people but those who are measured on (--held_out), and prints how many strangers
are taken for someone else, by people held out in folds. Score: see RESULTS.
"""

import itertools
import pathlib
from typing import NamedTuple

import numpy as np
import safetensors.numpy
from absl import app, flags
from jaxtyping import Float

from pir_jax.data import manifest, records, speakers
from pir_jax.data.dataset import Clip
from pir_jax.face import appearance, resemblance

_DATA = flags.DEFINE_multi_string("data", None, "Folders of prepared clips.")
_PEOPLE = flags.DEFINE_string("people", None, "List of who is in which clip.")
_HELD_OUT = flags.DEFINE_list("held_out", [], "People who are only measured.")
_NUM_EXAMPLES = 12  # Frames of a clip.
_NUM_DIRECTIONS = 60
_SHRINKAGE = 0.05  # Of the scatter within a person, towards a sphere.
_NUM_FOLDS, _NUM_DEALS = 5, 4  # Few strangers meet in one fold.


class Face(NamedTuple):
  """A clip's face: its file, who it is, and rows of log colours."""

  file: str
  person: str
  rows: Float[np.ndarray, "n _"]


def read(folder: pathlib.Path, people: dict[str, speakers.Entry]) -> Face:
  """Describes the face of a prepared clip."""
  clip = Clip.open(folder)
  frames = clip.frame_records
  examples = []
  for row in np.linspace(0, len(frames) - 1, _NUM_EXAMPLES).astype(int):
    arrays = safetensors.numpy.load(frames[int(row)])
    image = np.asarray(records.decode_picture(arrays["image"]).convert("RGB"))
    points = np.pad(image.shape[0] * arrays["landmarks"], ((0, 0), (0, 1)))
    examples.append(appearance.describe(image, np.float32(points)))
  file = clip.manifest.source
  rows = resemblance.centred(np.stack(examples))
  return Face(file, people[file].speaker, rows)


def fit(faces: list[Face]) -> tuple[np.ndarray, np.ndarray]:
  """Fits mean and directions, each person counting alike.

  Returns:
    The mean, and directions in which the scatter within a person is a sphere.
  """
  by_person: dict[str, list[np.ndarray]] = {}
  for face in faces:
    by_person.setdefault(face.person, []).append(face.rows)
  own = {name: np.concatenate(rows) for name, rows in by_person.items()}
  mean = np.mean([rows.mean(0) for rows in own.values()], 0)
  spread = [(rows - mean) / len(rows) ** 0.5 for rows in own.values()]
  _, _, axes = np.linalg.svd(np.concatenate(spread), full_matrices=False)
  axes = axes[:_NUM_DIRECTIONS].T
  within = np.mean(
    [np.cov((rows @ axes).T, bias=True) for rows in own.values()], 0
  )
  sphere = np.trace(within) / len(within) * np.eye(len(within))
  within = (1 - _SHRINKAGE) * within + _SHRINKAGE * sphere
  values, vectors = np.linalg.eigh(within)
  return mean, axes @ (vectors / values**0.5)


def looks(
  faces: list[Face], mean: np.ndarray, directions: np.ndarray
) -> np.ndarray:
  """Returns the look of each face."""
  places = np.stack([face.rows.mean(0) - mean for face in faces]) @ directions
  return places / np.linalg.norm(places, axis=1, keepdims=True)


def cross_validate(faces: list[Face]) -> tuple[np.ndarray, np.ndarray]:
  """Returns the resemblance of pairs of one person, and of two, both unseen."""
  names = sorted({face.person for face in faces})
  rng = np.random.default_rng(0)
  deals = [rng.permutation(names) for _ in range(_NUM_DEALS)]
  same, other = [], []
  for deal, fold in itertools.product(deals, range(_NUM_FOLDS)):
    held = set(deal[fold::_NUM_FOLDS])
    fitted = fit([face for face in faces if face.person not in held])
    unseen = [face for face in faces if face.person in held]
    alike = looks(unseen, *fitted)
    alike = alike @ alike.T
    for i, j in itertools.combinations(range(len(unseen)), 2):
      one = unseen[i].person == unseen[j].person
      (same if one else other).append(alike[i, j])
  return np.array(same), np.array(other)


def main(unused_argv) -> None:
  """Fits, measures, writes and prints."""
  people = speakers.read(_PEOPLE.value)
  faces = [read(path, people) for path in manifest.as_paths(_DATA.value)]
  same, other = cross_validate(faces)
  print(f"{len(faces)} clips, {len({f.person for f in faces})} people")
  print("limit   one person refused   a stranger taken for them")
  for limit in (0.5, resemblance.SAME, 0.7, 0.8):
    print(
      f"{limit:5.2f}   {np.mean(same < limit):18.3f}   "
      f"{np.mean(other >= limit):24.3f}"
    )
  known = [face for face in faces if face.person not in _HELD_OUT.value]
  mean, directions = fit(known)
  arrays = {"mean": np.float32(mean), "directions": np.float16(directions)}
  np.savez(resemblance.FILE, **arrays)
  print(f"{resemblance.FILE}: {len({f.person for f in known})} people")
  measured = [face for face in faces if face.person in _HELD_OUT.value]
  alike = looks(measured, mean, directions) @ looks(faces, mean, directions).T
  for face, row in zip(measured, alike, strict=True):
    nearest = sorted(
      (-value, other.file)
      for other, value in zip(faces, row, strict=True)
      if other.file != face.file
    )
    text = ", ".join(f"{file} {-value:.2f}" for value, file in nearest[:5])
    print(f"{face.file}: {text}")


if __name__ == "__main__":
  flags.mark_flags_as_required(["data", "people"])
  app.run(main)
