"""Links tracklets of a video into people.

The most similar tracklets are joined first; two that share a frame never are.
Over a short gap position weighs more than appearance; over a cut or a long gap
appearance alone decides.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps

from pir_jax.face import appearance, detector, resemblance, tracklets
from pir_jax.types import InputError

# Distances of appearance up to this factor larger are one person where
# position and time agree: a hand before the mouth, a lamp switched on.
_LENIENCE = 3.0
# The limit is this share of the distance between different people of one
# frame, at most the second factor times the default.
_CLEARLY, _AT_MOST = 0.65, 1.4
# Of a face that is partly covered.
_TOUCHING = 1.6
# Tracklets compared at once; an hour of cuts has thousands.
_AT_ONCE = 64


@dataclasses.dataclass(slots=True)
class Person:
  """Tracklets of one person, in the order of time, and their appearance."""

  pieces: list[tracklets.Tracklet]
  gallery: appearance.Gallery

  @property
  def height(self) -> float:
    """The face's height, summed over its frames."""
    return sum(piece.height for piece in self.pieces)

  @property
  def look(self) -> Float[np.ndarray, "d"]:
    """What they look like, see `resemblance`."""
    return resemblance.look(np.stack(self.gallery.examples))

  @property
  def num_frames(self) -> int:
    return sum(len(piece.rows) for piece in self.pieces)


def link(pieces: list[tracklets.Tracklet], fps: float) -> list[Person]:
  """Links tracklets into people, the largest (by summed height) first.

  Tracklets that touch others are assigned to the best match, and do not enter
  that person's gallery.
  """
  pieces = sorted(pieces, key=lambda piece: piece.first)
  people: list[Person] = []
  limit = _limit([piece for piece in pieces if not piece.touching])
  for touching in (False, True):
    group = [piece for piece in pieces if piece.touching == touching]
    if touching:
      group = _give(group, people, fps)
    for start in range(0, len(group), _AT_ONCE):
      part = group[start : start + _AT_ONCE]
      people += [Person([piece], _copy(piece.gallery)) for piece in part]
      people = _join(people, fps, limit)
  # A very short track is more often a false detection than a person.
  longest = max((person.num_frames for person in people), default=0)
  least = min(longest / 10, tracklets.LOST_SECONDS * fps)
  people = [person for person in people if person.num_frames >= least]
  return sorted(people, key=lambda person: -person.height)


def _limit(pieces: list[tracklets.Tracklet]) -> float:
  """Computes the largest distance between one person's tracklets.

  Faces of one frame are different people. Where these differ much, tracklets
  of one person may differ more than elsewhere.
  """
  differ = [
    one.gallery.distance(other.gallery)
    for k, one in enumerate(pieces[:_AT_ONCE])
    for other in pieces[:k]
    if other.first <= one.last and one.first <= other.last
  ]
  if not differ:
    return appearance.SAME
  least = _CLEARLY * min(differ)
  return float(np.clip(least, appearance.SAME, _AT_MOST * appearance.SAME))


def _give(
  pieces: list[tracklets.Tracklet], people: list[Person], fps: float
) -> list[tracklets.Tracklet]:
  """Assigns each tracklet to its best match; returns those without a match.

  Tracklets go in the order of time, overlapping ones by their cost.
  """
  left = []
  waiting = sorted(pieces, key=lambda piece: piece.first)
  while waiting:
    last = waiting[0].last
    moment = [piece for piece in waiting if piece.first <= last]
    costs = np.array(
      [
        [
          _cost(Person([piece], piece.gallery), person, fps)
          for person in people
        ]
        for piece in moment
      ]
    )
    best = costs.argmin() if costs.size else 0
    piece = moment[best // max(len(people), 1)]
    waiting = [other for other in waiting if other is not piece]
    if costs.size and costs.min() < _TOUCHING * appearance.SAME:
      person = people[best % len(people)]
      person.pieces = sorted([*person.pieces, piece], key=lambda p: p.first)
    else:
      left.append(piece)
  return left


def _join(people: list[Person], fps: float, limit: float) -> list[Person]:
  """Joins the two most similar people until none are within the limit."""
  people = list(people)
  cost = np.full((len(people), len(people)), np.inf)
  for j in range(len(people)):
    for i in range(j):
      cost[i, j] = _cost(people[i], people[j], fps)
  while cost.size and cost.min() < limit:
    i, j = np.unravel_index(cost.argmin(), cost.shape)
    one, other = people[i], people[j]
    one.pieces = sorted(one.pieces + other.pieces, key=lambda p: p.first)
    for example in other.gallery.examples:
      one.gallery.add(example)
    cost[j], cost[:, j] = np.inf, np.inf
    people[j] = None
    for k, person in enumerate(people):
      if person is not None and k != i:
        cost[min(i, k), max(i, k)] = _cost(person, one, fps)
  return [person for person in people if person is not None]


def _cost(a: Person, b: Person, fps: float) -> float:
  """Computes the cost of joining two: appearance, helped by position."""
  pieces = sorted(a.pieces + b.pieces, key=lambda piece: piece.first)
  pairs = list(zip(pieces[:-1], pieces[1:], strict=True))
  if any(before.last >= after.first for before, after in pairs):
    return np.inf
  cost = a.gallery.distance(b.gallery)
  mine = {id(piece) for piece in a.pieces}
  for before, after in pairs:
    if (id(before) in mine) == (id(after) in mine):
      continue
    gap = (after.first - before.last) / fps
    if before.shot != after.shot or gap > tracklets.LOST_SECONDS:
      continue
    size = float(np.ptp(before.boxes[1][1::2]))
    moved = _centre(after.boxes[0]) - _centre(before.boxes[1])
    moved = float(np.linalg.norm(moved)) / max(size, 1.0)
    if before.sure[1] and after.sure[0] and _same_place(before, after):
      return cost / _LENIENCE
    # Breaks ties between equal appearances: the nearer one.
    cost += 1e-3 * min(moved, 10.0)
  return cost


def _copy(gallery: appearance.Gallery) -> appearance.Gallery:
  new = appearance.Gallery()
  for example in gallery.examples:
    new.add(example)
  return new


def _same_place(before: tracklets.Tracklet, after: tracklets.Tracklet) -> bool:
  """Returns whether the last box of one continues in the other's first."""
  boxes = before.boxes[1], after.boxes[0]
  size, other = (float(np.prod(box[2:] - box[:2]) ** 0.5) for box in boxes)
  moved = np.linalg.norm(_centre(boxes[0]) - _centre(boxes[1]))
  return bool(0.6 < size / max(other, 1e-6) < 1.7 and moved < 0.6 * size)


def _centre(box: np.ndarray) -> np.ndarray:
  return (box[:2] + box[2:]) / 2


def choose(
  people: list[Person],
  face: int | Float[np.ndarray, "l 3"] | None,
  expected: Float[np.ndarray, "d"] | None = None,
  refuse: bool = True,
) -> Person:
  """Selects a person by index, description or look.

  Args:
    people: seen, the largest first.
    face: index; or description of the person; None is whoever looks most like
      the expected one, or without one the largest.
    expected: look of who should be seen; None is anyone.
    refuse: whoever does not look like that.

  Raises:
    InputError: there is no such person.
  """
  looks = [person.look for person in people]
  if face is None and expected is None:
    face = 0
  if isinstance(face, int):
    if not 0 <= face < len(people):
      raise InputError(
        f"There is no face {face} in this video, but {len(people)}, counted"
        " from 0, the largest: choose one of them. At most"
        f" {detector.MAX_FACES} at a time are followed."
      )
    chosen = face
  else:
    wanted = expected if face is None else resemblance.look(face[None])
    alike = [resemblance.resemblance(look, wanted) for look in looks]
    chosen = int(np.argmax(alike))
    if face is not None and alike[chosen] < resemblance.SAME:
      raise InputError(
        "Nobody in this video looks like the reference picture (resemblance"
        f" {alike[chosen]:.2f}, at least {resemblance.SAME:g}): take another"
        " picture, such as a frame of the video, or choose by number, from 0"
        f" (the largest) to {len(people) - 1}."
      )
  if expected is not None and refuse:
    alike = resemblance.resemblance(looks[chosen], expected)
    if alike < resemblance.SAME:
      raise InputError(
        "The video shows somebody else than the networks were trained on"
        f" (resemblance {alike:.2f}, at least {resemblance.SAME:g}): use a"
        " video of that person, choose another face, or go on with --force."
      )
  return people[chosen]


def reference(
  picture: str, tracker: detector.Tracker
) -> Float[np.ndarray, "l 3"]:
  """Describes the largest face of an image file.

  Raises:
    InputError: there is no such picture, or no face in it.
  """
  try:
    with Image.open(picture) as image:
      upright = ImageOps.exif_transpose(image).convert("RGB")
  except (OSError, SyntaxError) as error:
    raise InputError(
      f"{picture} cannot be read as a picture of a face: give a JPEG or PNG"
      f" file, or a number ({error})."
    ) from error
  return describe(np.asarray(upright), tracker, str(picture))


def describe(
  image: UInt8[np.ndarray, "h w 3"], tracker: detector.Tracker, name: str
) -> Float[np.ndarray, "l 3"]:
  """Describes the largest face of an image."""
  points, _ = tracker.landmarks(image)
  if np.isnan(points).any():
    raise InputError(
      f"{name} shows no face: choose a picture in which the face is upright"
      " and unhidden."
    )
  return appearance.describe(image, points)
