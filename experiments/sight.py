"""Fits and measures `face/sight`: whether a picture shows a face's lips.

Command: python -m experiments.sight --data=data/people --people=people.tsv
Hardware: a CPU core; five minutes. Covers the mouths of prepared clips with
boxes, noise, mosaics, blur, face masks, hands, microphones, skin and pieces of
other pictures; writes pir_jax/face/sight.npz, of all people but those in
--held_out, and prints what share of frames is detected, of people and of kinds
of things that the fit never saw. Score: see RESULTS.
"""

import pathlib
from collections.abc import Callable

import numpy as np
import safetensors.numpy
from absl import app, flags
from PIL import Image, ImageDraw
from scipy import ndimage

from pir_jax.data import manifest, records, speakers
from pir_jax.data.dataset import Clip
from pir_jax.face import sight

_DATA = flags.DEFINE_multi_string("data", None, "Folders of prepared clips.")
_PEOPLE = flags.DEFINE_string("people", None, "List of who is in which clip.")
_HELD_OUT = flags.DEFINE_list("held_out", [], "People who are left out.")
_SIDE = 256
_NUM_FRAMES = 10  # Of a clip.
_NUM_COVERED = 3  # Kinds of things before each frame's mouth.
_RIDGE = 10.0
_NUM_FOLDS = 5
_NOSE, _CHIN, _CHEEK, _FOREHEAD = 2, 152, 50, 151
_SIDES = (234, 454)  # Of the face.

Rng = np.random.Generator


class Scene:
  """A frame with landmarks, in units of which things are laid over it."""

  def __init__(self, image: np.ndarray, points: np.ndarray):
    self.image, self.points = image, points
    self.nose, self.chin = points[_NOSE, :2], points[_CHIN, :2]
    self.width = float(np.hypot(*np.diff(points[list(_SIDES), :2], axis=0)[0]))
    self.height = float(self.chin[1] - self.nose[1])
    self.mouth = points[[61, 291], :2].mean(0)

  def box(self, rng: Rng) -> np.ndarray:
    """Covers from about the nose to about the chin."""
    left, right = self.mouth[0] + self.width * rng.uniform(
      [-0.7, 0.28], [-0.28, 0.7]
    )
    top = self.nose[1] + self.height * rng.uniform(-0.1, 0.12)
    bottom = self.chin[1] + self.height * rng.uniform(-0.25, 0.35)
    return self.polygon(
      [(left, top), (right, top), (right, bottom), (left, bottom)]
    )

  def blob(self, rng: Rng) -> np.ndarray:
    """Covers an uneven ellipse about the mouth."""
    turn = np.linspace(0, 2 * np.pi, 40)
    radius = 1 + 0.08 * np.sin(3 * turn + rng.uniform(0, 6))
    across = self.width * rng.uniform(0.25, 0.5) * radius * np.cos(turn)
    down = self.height * rng.uniform(0.4, 0.8) * radius * np.sin(turn)
    middle = self.mouth + rng.normal(0, 0.04, 2) * self.width
    return self.polygon(np.stack([across, down], 1) + middle)

  def polygon(self, corners) -> np.ndarray:
    mask = Image.new("L", self.image.shape[1::-1])
    corners = [tuple(map(float, corner)) for corner in corners]
    ImageDraw.Draw(mask).polygon(corners, fill=255)
    return np.asarray(mask)[..., None] / 255.0

  def under(self, mask: np.ndarray, thing, rng: Rng) -> np.ndarray:
    """Lays a thing over the frame."""
    soft = ndimage.gaussian_filter(mask, (rng.uniform(0, 1.5),) * 2 + (0,))
    mixed = self.image * (1 - soft) + thing * soft
    return mixed.clip(0, 255).astype(np.uint8)


def _box(scene, others, rng):
  colour = np.full(3, rng.uniform(0, 255))
  if rng.random() < 1 / 3:
    colour = rng.uniform(0, 255, 3)
  return scene.under(scene.box(rng), colour, rng)


def _noise(scene, others, rng):
  shape = scene.image.shape
  grain = rng.normal(rng.uniform(60, 200), rng.uniform(10, 60), shape)
  grain = ndimage.gaussian_filter(grain, (rng.uniform(0, 2),) * 2 + (0,))
  return scene.under(scene.box(rng), grain, rng)


def _mosaic(scene, others, rng):
  side = max(2, round(_SIDE / rng.uniform(14, 40)))
  small = Image.fromarray(scene.image).resize(
    (side, side), Image.Resampling.BOX
  )
  tiles = small.resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
  return scene.under(scene.box(rng), np.asarray(tiles), rng)


def _blur(scene, others, rng):
  sigma = (rng.uniform(10, 18),) * 2 + (0,)
  blurred = ndimage.gaussian_filter(scene.image.astype(np.float32), sigma)
  mask = scene.box(rng) if rng.random() < 0.5 else scene.blob(rng)
  return scene.under(mask, blurred, rng)


def _face_mask(scene, others, rng):
  points = scene.points[:, :2]
  sides = [(points[a] + points[b]) / 2 for a, b in ((234, 58), (454, 288))]
  bridge = 0.6 * points[2] + 0.4 * points[1]
  below = points[_CHIN] + [0, 0.04 * scene.width]
  outline = [sides[0], bridge, sides[1], points[288], below, points[58]]
  cloths = [150, 190, 220], [240, 240, 240], [30, 30, 35], [120, 160, 130]
  cloth = np.array(cloths[rng.integers(4)]) + rng.normal(0, 12, 3)
  rows, columns = np.indices((_SIDE, _SIDE))
  folds = 1 + 0.12 * np.sin(rows / rng.uniform(2, 6)) * (rng.random() < 0.6)
  shade = 1 - 0.25 * np.abs(columns - points[1, 0]) / scene.width
  return scene.under(
    scene.polygon(outline), cloth * (folds * shade)[..., None], rng
  )


def _piece(scene, others, rng):
  other = np.roll(
    others[rng.integers(len(others))], rng.integers(0, _SIDE, 2), (0, 1)
  )
  other = np.rot90(other, rng.integers(4))
  mask = scene.blob(rng) if rng.random() < 0.6 else scene.box(rng)
  return scene.under(mask, other, rng)


def _hand(scene, others, rng):
  column, row = scene.points[_CHEEK, :2].astype(int).clip(0, _SIDE - 1)
  rows, columns = np.indices((_SIDE, _SIDE))
  turn = rng.uniform(0, np.pi)
  along = columns * np.cos(turn) + rows * np.sin(turn)
  finger = along / (scene.width * rng.uniform(0.12, 0.22)) + rng.uniform()
  gap = finger % 1 - 0.5
  shade = (
    1 - 0.45 * np.exp(-((gap / 0.06) ** 2)) - 0.08 * np.cos(2 * np.pi * gap)
  )
  uneven = ndimage.gaussian_filter(rng.normal(size=(_SIDE, _SIDE)), 12)
  shade = shade * (1 + 1.2 * uneven) * rng.uniform(0.8, 1.15)
  skin = scene.image[row, column] * shade[..., None]
  skin = skin + rng.normal(0, 2, skin.shape)
  return scene.under(scene.blob(rng), skin, rng)


def _microphone(scene, others, rng):
  x, y = scene.mouth + rng.normal(0, 0.05, 2) * scene.width
  radius = scene.width * rng.uniform(0.22, 0.4)
  rows, columns = np.indices((_SIDE, _SIDE))
  away = np.hypot(columns - x, (rows - y) / rng.uniform(0.9, 1.3)) / radius
  grille = np.sin(columns * rng.uniform(0.8, 2)) * np.sin(
    rows * rng.uniform(0.8, 2)
  )
  grey = rng.uniform(10, 90) * (1.3 - 0.7 * away) + 10 * grille
  grey = grey + rng.normal(0, 8, grey.shape)
  slant = (rows - y) * rng.normal(0, 0.3)
  stick = (np.abs(columns - x - slant) < radius / 2) & (rows > y)
  mask = ((away < 1) | stick)[..., None].astype(np.float32)
  return scene.under(mask, np.repeat(grey[..., None], 3, -1), rng)


def _skin(scene, others, rng):
  point = scene.points[rng.choice([_CHEEK, _FOREHEAD]), :2]
  half = int(0.1 * scene.width) + 2
  x, y = point.astype(int).clip(half, _SIDE - half)
  smooth = Image.fromarray(
    scene.image[y - half : y + half, x - half : x + half]
  )
  return scene.under(
    scene.blob(rng), np.asarray(smooth.resize((_SIDE, _SIDE))), rng
  )


THINGS: dict[str, Callable] = {
  "box": _box,
  "noise": _noise,
  "mosaic": _mosaic,
  "blur": _blur,
  "face mask": _face_mask,
  "piece of a picture": _piece,
  "hand": _hand,
  "microphone": _microphone,
  "skin": _skin,
}


def in_other_light(image: np.ndarray, rng: Rng) -> np.ndarray:
  """Changes contrast, tint, sharpness and noise, sometimes to grey."""
  image = 128 + (image.astype(np.float32) - 128) * rng.uniform(0.5, 1.4)
  image = (image + rng.normal(0, 25)) * np.exp(rng.normal(0, 0.12, 3))
  if rng.random() < 0.3:
    image = image @ np.full((3, 3), 1 / 3)
  if rng.random() < 0.5:
    image = ndimage.gaussian_filter(image, (rng.uniform(0.3, 2.5),) * 2 + (0,))
  image = image + rng.normal(0, rng.uniform(0, 6), image.shape)
  return image.clip(0, 255).astype(np.uint8)


def shaken(points: np.ndarray, rng: Rng) -> np.ndarray:
  """Moves landmarks as the mesh of a half hidden face may be off."""
  middle = points[:, :2].mean(0)
  turn, size = rng.normal(0, 0.04), np.exp(rng.normal(0, 0.05))
  cos, sin = size * np.cos(turn), size * np.sin(turn)
  moved = (points[:, :2] - middle) @ np.array([[cos, sin], [-sin, cos]])
  shift = rng.normal(0, 0.025, 2) * np.ptp(points[:, 0])
  return np.float32(np.pad(moved + middle + shift, ((0, 0), (0, 1))))


def fit(rows: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, float]:
  """Fits a logistic regression with a ridge, both classes counting alike."""
  mean = rows.mean(0)
  rows = np.pad(rows - mean, ((0, 0), (0, 1)), constant_values=1.0)
  share = np.where(seen, 0.5 / seen.mean(), 0.5 / (1 - seen.mean()))
  weights = np.zeros(rows.shape[1])
  for _ in range(30):
    chance = 1 / (1 + np.exp(-rows @ weights))
    slope = rows.T @ (share * (chance - seen)) + _RIDGE * weights
    curve = (rows * (share * chance * (1 - chance) + 1e-6)[:, None]).T @ rows
    step = np.linalg.solve(curve + _RIDGE * np.eye(len(weights)), slope)
    weights -= step
    if np.abs(step).max() < 1e-3:
      break
  return weights[:-1], float(weights[-1] - mean @ weights[:-1])


def read(folders, people) -> list[tuple[str, np.ndarray, np.ndarray]]:
  """Returns (person, picture, landmarks) of some frames of each clip."""
  frames = []
  for folder in folders:
    clip = Clip.open(folder)
    person = people[clip.manifest.source].speaker
    stored = clip.frame_records
    for row in np.linspace(0, len(stored) - 1, _NUM_FRAMES).astype(int):
      arrays = safetensors.numpy.load(stored[int(row)])
      image = records.decode_picture(arrays["image"]).convert("RGB")
      image = image.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
      points = np.pad(_SIDE * arrays["landmarks"], ((0, 0), (0, 1)))
      frames.append((person, np.asarray(image), points))
  return frames


def main(unused_argv) -> None:
  """Covers, fits, measures, writes and prints."""
  people = speakers.read(_PEOPLE.value)
  frames = read(manifest.as_paths(_DATA.value), people)
  pictures = [image for _, image, _ in frames]
  rng = np.random.default_rng(0)
  rows, kinds, persons = [], [], []
  for person, image, points in frames:
    scene = Scene(image, points)
    made = [("as it is", image), ("other light", in_other_light(image, rng))]
    for kind in rng.choice(list(THINGS), _NUM_COVERED, replace=False):
      covered = THINGS[kind](scene, pictures, rng)
      if rng.random() < 0.6:
        covered = in_other_light(covered, rng)
      made.append((str(kind), covered))
    for kind, picture in made:
      rows.append(sight.features(picture, shaken(points, rng)))
      kinds.append(kind)
      persons.append(person)
  rows, kinds, persons = map(np.array, (rows, kinds, persons))
  seen = np.isin(kinds, ("as it is", "other light"))
  names = np.random.default_rng(1).permutation(sorted(set(persons)))
  evidence, without = np.zeros(len(rows)), np.zeros(len(rows))
  for fold in range(_NUM_FOLDS):
    held = np.isin(persons, names[fold::_NUM_FOLDS])
    weights, offset = fit(rows[~held], seen[~held])
    evidence[held] = rows[held] @ weights + offset
    for kind in THINGS:
      known = ~held & (kinds != kind)
      weights, offset = fit(rows[known], seen[known])
      here = held & (kinds == kind)
      without[here] = rows[here] @ weights + offset
  print(f"{len(frames)} frames of {len(names)} people, who are held out")
  for kind in ("as it is", "other light"):
    print(
      f"{kind:20} taken for hidden {np.mean(evidence[kinds == kind] < 0):.3f}"
    )
  for kind in THINGS:
    here = kinds == kind
    print(
      f"{kind:20} detected {np.mean(evidence[here] < 0):.3f}, "
      f"of a kind not seen {np.mean(without[here] < 0):.3f}"
    )
  kept = ~np.isin(persons, _HELD_OUT.value)
  weights, offset = fit(rows[kept], seen[kept])
  np.savez(sight.FILE, weights=np.float32(weights), offset=np.float32(offset))
  print(f"{pathlib.Path(sight.FILE)}: {len(set(persons[kept]))} people")


if __name__ == "__main__":
  flags.mark_flags_as_required(["data", "people"])
  app.run(main)
