"""Two real people, cut from the packaged clip, in scenes of our own."""

import av
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pir_jax import assets
from pir_jax.face import detector, eyelids, landmarks, resemblance
from pir_jax.types import InputError

HEIGHT, WIDTH, FPS = 200, 400, 25.0


@pytest.fixture(scope="module")
def networks():
  return detector.Tracker(), eyelids.Eyes()


@pytest.fixture(scope="module")
def faces(networks):
  """Pictures of each of two people, and where they are opaque."""
  tracker, _ = networks
  with av.open(str(assets.fetch("demo_video"))) as video:
    frames = [f.to_ndarray(format="rgb24") for f in video.decode(video=0)]
  frames = frames[:40]
  found = tracker.detect(frames[0])
  assert len(found) == 2
  cut = []
  for side, box in ((140, found[0, :4]), (126, found[1, :4])):
    pictures = []
    for frame in frames:
      points, _ = tracker.landmarks(frame, box)
      box = detector.box_of(points)
      x, y = (box[:2] + box[2:]) / 2
      region = detector.Region(float(x), float(y), 84.0, 0.0)
      pictures.append(detector.sample(frame, region, side))
    cut.append(pictures)
  return cut


def wall(seed):
  """Two rooms that share nothing but their light."""
  noise = np.random.default_rng(seed).normal(size=(HEIGHT, WIDTH, 3))
  noise = ndimage.gaussian_filter(noise, (12, 12, 0))
  return 125 + 15 * noise / noise.std()


ROOMS = [wall(0), wall(1)]


def scene(faces, placed, room=0):
  """A frame of a room with some (who, which picture, x, y), back to front."""
  frame = ROOMS[room].copy()
  for who, number, x, y in placed:
    pictures = faces[who]
    number = number % (2 * len(pictures) - 2)  # There and back.
    number = min(number, 2 * len(pictures) - 2 - number)
    picture = pictures[number]
    side = len(picture)
    v, u = np.mgrid[:side, :side] / side - 0.5
    opaque = np.clip(10.5 - 10 * ((u / 0.32) ** 2 + (v / 0.42) ** 2), 0, 1)
    top, left = round(y - side / 2), round(x - side / 2)
    part = frame[top : top + side, left : left + side]
    part += (picture - part) * opaque[..., None]
  return frame.astype(np.uint8)


def follow(networks, frames, **options):
  tracker, lids = networks
  return landmarks.track(frames, tracker=tracker, eyes=lids, fps=FPS, **options)


def across(track):
  """Where the face is from left to right; NaN where it is not."""
  return (track.box[:, 0] + track.box[:, 2]) / 2


@pytest.mark.parametrize("front", [0, 1])
def test_people_are_kept_when_they_cross(networks, faces, front):
  count = 36
  ways = np.linspace([80, 320], [320, 80], count).T
  frames = [
    scene(faces, [(who, k, ways[who][k], 100) for who in (1 - front, front)])
    for k in range(count)
  ]
  track = follow(networks, frames)
  assert track.num_faces == 2
  who = int(across(track)[0] > 200)
  # Faces are 80 px wide: from there on nobody is taken for the other.
  apart = np.abs(ways[0] - ways[1]) > 80
  wrong = np.abs(across(track) - ways[who])
  assert np.isfinite(wrong[apart]).mean() > 0.9
  assert np.nanmax(wrong[apart]) < 20
  if who == front:
    assert track.present.mean() > 0.9


@pytest.fixture(scope="module")
def broken(faces):
  """One leaves for a second and returns elsewhere; a cut to the other; back."""
  frames = [scene(faces, [(0, k, 100 + k, 100)]) for k in range(8)]
  frames += [scene(faces, []) for _ in range(25)]
  frames += [scene(faces, [(0, k, 290, 100)]) for k in range(8)]
  frames += [scene(faces, [(1, k, 150, 100)], room=1) for k in range(14)]
  return frames + [scene(faces, [(0, k + 9, 200, 100)]) for k in range(8)]


COUNTS = [8, 25, 8, 14, 8]


def test_person_is_known_after_a_second_away_and_over_cuts(networks, broken):
  track = follow(networks, broken)
  assert track.num_faces == 2
  np.testing.assert_array_equal(track.shot, np.repeat([0, 1, 2], [41, 14, 8]))
  present = np.repeat([True, False, True, False, True], COUNTS)
  np.testing.assert_array_equal(track.present, present)
  assert not track.interpolated.any()


def test_reference_picture_chooses_the_person(
  networks, faces, broken, tmp_path
):
  for who in (0, 1):
    # Another moment of that person, larger, darker and as a JPEG.
    picture = np.pad(faces[who][30], ((30, 30), (30, 30), (0, 0)), mode="edge")
    picture = Image.fromarray((picture * 0.8).astype(np.uint8))
    path = tmp_path / f"one of {who}.jpg"
    picture.resize((300, 300)).save(path, quality=85)
    track = follow(networks, broken[36:50], face=path)
    assert track.num_faces == 2
    np.testing.assert_array_equal(
      track.present, np.repeat([who == 0, who == 1], [5, 9])
    )


def test_reference_pictures_that_help_nobody_are_sentences(
  networks, faces, broken, tmp_path
):
  blank = tmp_path / "blank.png"
  Image.fromarray(np.full((99, 99, 3), 90, np.uint8)).save(blank)
  with pytest.raises(InputError, match="blank.png shows no face"):
    follow(networks, broken[:3], face=blank)
  words = tmp_path / "words.jpg"
  words.write_text("no picture")
  with pytest.raises(InputError, match="cannot be read as a picture"):
    follow(networks, broken[:3], face=words)
  with pytest.raises(InputError, match="cannot be read as a picture"):
    follow(networks, broken[:3], face="missing.png")
  stranger = np.pad(bearded(faces[0][0]), ((30, 30), (30, 30), (0, 0)))
  with pytest.raises(InputError, match="Nobody in this video looks like"):
    follow(networks, broken[:6], face=stranger)


def test_a_tint_of_the_light_makes_no_stranger(networks, faces, broken):
  tinted = np.pad(faces[0][0], ((30, 30), (30, 30), (0, 0)))
  tinted = (tinted * [0.6, 0.8, 1.2]).clip(0, 255).astype(np.uint8)
  assert follow(networks, broken[:6], face=tinted).present.all()


def bearded(picture):
  """Darkens the lower face: another person, as far as colours go."""
  picture = picture.astype(float)
  picture[round(0.56 * len(picture)) :] *= 0.3
  return picture.astype(np.uint8)


def test_the_expected_person_is_taken_and_a_stranger_refused(networks, faces):
  def moving(who, x):
    return [scene(who, [(0, k, x, 100)]) for k in range(8)]

  other = [[bearded(picture) for picture in faces[0]]]
  looks = [follow(networks, moving(who, 200)).look for who in (faces, other)]
  assert resemblance.resemblance(*looks) < resemblance.SAME
  both = [
    scene([faces[0], other[0]], [(0, k, 100, 100), (1, k, 300, 100)])
    for k in range(8)
  ]
  for who in (0, 1):
    options = {"face": None, "expected": looks[who]}
    track = follow(networks, both, **options)
    np.testing.assert_allclose(across(track), (100, 300)[who], atol=20)
    stranger = moving((other, faces)[who], 200)
    with pytest.raises(InputError, match="somebody else than the networks"):
      follow(networks, stranger, **options)
    assert follow(networks, stranger, refuse=False, **options).present.all()
  # Nor is a stranger taken who was chosen by number: --force is for that.
  with pytest.raises(InputError, match="--force"):
    for face in (0, 1):
      follow(networks, both, face=face, expected=looks[0])


def test_two_people_at_once_are_never_one(networks, faces):
  # The same face twice: nothing but time tells them apart.
  frames = [
    scene(faces, [(0, k, 100, 100), (0, k, 300, 100)]) for k in range(8)
  ]
  track = follow(networks, frames)
  assert track.num_faces == 2
  assert track.present.all()
  assert np.ptp(across(track)) < 5
