"""Frames are in order, inpainted where a face is and the same elsewhere."""

import itertools
import types

import numpy as np
import pytest

from pir_jax.data import synthetic
from pir_jax.face import masks, morphable
from pir_jax.inference import reenactor
from pir_jax.inference import source as source_lib
from pir_jax.inference.person import Person
from pir_jax.marks import watermark
from pir_jax.marks.marking import Marking
from pir_jax.media import fill, video_reader
from pir_jax.preparation import growing, tracking
from pir_jax.runtime import section_timer

NUM_FRAMES, WANTED = 20, 45


class TrackedVideo(tracking.TrackedVideo):
  """A clip whose face mask is the middle of its window."""

  def face_masks(self, frames, side):
    mask = np.zeros((len(frames), side, side), bool)
    mask[:, side // 4 : -side // 4, side // 4 : -side // 4] = True
    return mask


class GreyPerson(Person):
  """Inpaints the first expression coefficient as a grey."""

  def __init__(self, resolution=64):
    self.resolution = resolution
    self.expressions = []
    self.phases = section_timer.SectionTimer()

  def inpaint(self, image, mask, cameras, expression):
    self.expressions.append(expression)
    return np.where(mask > 0, expression[:, :1, None, None], image)


def source_of(clip, person, window_side=64):
  known = types.SimpleNamespace(window_side=window_side)
  return source_lib.Source(person, known, clip)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
  path = tmp_path_factory.mktemp("clip") / "disc.mp4"
  synthetic.write_video(path, num_frames=NUM_FRAMES)
  info = video_reader.probe(path)
  track = synthetic.synthetic_track(NUM_FRAMES, size=info.height)
  times = np.array([float(time) for time, _ in video_reader.read_frames(path)])
  present = np.ones(NUM_FRAMES, bool)
  present[5:9] = False
  window = np.tile(
    np.float32([info.width / 2, info.height / 2, info.height * 0.8]),
    (NUM_FRAMES, 1),
  )
  track = track._replace(times=times, present=present, window=window)
  return TrackedVideo(path, info, None, None, track, 1, masks.Config())


def run(clip, kept=False, mark="all"):
  person = GreyPerson()
  size = clip.track.expression.shape[1]
  wanted = np.zeros((WANTED, size), np.float32)
  wanted[:, 0] = np.linspace(-1, 1, WANTED)
  mask = np.zeros(size, bool)
  mask[1:] = kept
  index = fill.frame_indices(NUM_FRAMES, WANTED)
  source = source_of(clip, person)._replace(marking=Marking(mark))
  frames = fill.read(clip.path, clip.track.times, index)
  pairs = list(reenactor.inpaint_frames(source, frames, wanted, mask))
  timed = person.phases
  counts = {n: sum(s.frames for s in v) for n, v in timed.spans.items()}
  present = clip.track.present[fill.frame_indices(NUM_FRAMES, WANTED)]
  assert counts == {
    "decode": WANTED,
    "masks and crops": present.sum(),
    "composite": present.sum(),
  }
  return pairs, person, wanted


def test_frames_without_a_face_are_the_very_same(clip):
  pairs, _, _ = run(clip)
  indices = fill.frame_indices(NUM_FRAMES, WANTED)
  for index, (before, after) in zip(indices, pairs, strict=True):
    assert (after is before) == (not clip.track.present[index])


def test_each_frame_shows_its_own_expression_and_only_inside_the_mask(clip):
  pairs, _, wanted = run(clip, mark="none")
  height, width, _ = pairs[0][0].shape
  for (before, after), expression in zip(pairs, wanted, strict=True):
    if after is before:
      continue
    grey = (expression[0] + 1) * 127.5
    # The colour match follows a ring of few pixels, across which a disc moves;
    # the expression of the next frame would be 5.8 levels away.
    assert np.abs(after[height // 2, width // 2] - grey).max() < 4
    changed = (before != after).any(-1)
    # The mask is the middle half of a window of 0.8 of the height, and the
    # feather 0.06 of it and some pixels.
    assert not changed[: round(0.2 * height)].any()
    assert not changed[:, : width // 2 - round(0.3 * height)].any()


def test_a_video_that_is_tracked_on_the_way_gives_the_same(
  clip, monkeypatch, tmp_path
):
  clip = clip._replace(model=morphable.load())
  plain, _, _ = run(clip)
  monkeypatch.setenv("PIR_JAX_KEEP", str(tmp_path))

  def upto(num_frames):
    rows = {
      name: value[:num_frames]
      for name, value in clip.track._asdict().items()
      if name not in ("identity", "look")
    }
    return growing.Step(clip._replace(track=clip.track._replace(**rows)), {})

  steps = (upto(n) for n in (16, 18, NUM_FRAMES))
  grown = growing.Growing(steps)
  person = GreyPerson()
  wanted = np.zeros((WANTED, clip.track.expression.shape[1]), np.float32)
  wanted[:, 0] = np.linspace(-1, 1, WANTED)
  source = source_of(grown, person)
  frames = itertools.islice(source_lib.frames(source, "bounce"), WANTED)
  kept = np.zeros(wanted.shape[1], bool)
  pairs = list(reenactor.inpaint_frames(source, frames, wanted, kept))
  for one, other in zip(pairs, plain, strict=True):
    for a, b in zip(one, other, strict=True):
      np.testing.assert_array_equal(a, b)
  # And its windows are known, as those of a known video.
  assert len(list((tmp_path / "windows").iterdir())) == 1
  source.close()


def test_the_watermark_changes_inpainted_pixels_a_little(clip, monkeypatch):
  monkeypatch.setattr(watermark, "SMALLEST", 0)
  marked, plain = (run(clip, mark=mark)[0] for mark in ("all", "none"))
  for (before, after), (_, other) in zip(marked, plain, strict=True):
    if after is before:
      continue
    change = np.abs(np.int16(after) - other).max(-1)
    height, width = change.shape
    assert not change[: round(0.2 * height)].any()
    middle = change[height // 2 - 8 :, width // 2 - 8 :][:16, :16]
    assert middle.mean() > 0.5 and change.max() <= 20


def test_kept_coefficients_are_the_source_frames_own(clip):
  _, person, wanted = run(clip, kept=True)
  shown = np.concatenate(person.expressions)
  indices = fill.frame_indices(NUM_FRAMES, WANTED)
  with_face = clip.track.present[indices]
  expected = clip.track.expression[indices[with_face]]
  np.testing.assert_array_equal(shown[:, 1:], expected[:, 1:])
  np.testing.assert_array_equal(shown[:, 0], wanted[with_face, 0])


class Witness(GreyPerson):
  """Keeps what the network is shown where it may look."""

  def __init__(self, resolution):
    super().__init__(resolution)
    self.shown = []

  def inpaint(self, image, mask, cameras, expression):
    self.shown.append((np.where(mask > 0, np.nan, image), mask))
    return np.full_like(image, 0.25)


@pytest.mark.parametrize("stored, side", [(64, 64), (64, 32), (40, 64)])
def test_noise_under_the_mask_changes_no_bit(clip, tmp_path, stored, side):
  """Of what the network is shown, and of the frames that are written."""
  x, y, extent = clip.track.window[0]
  shape = (clip.video.height, clip.video.width, 3)
  rows, columns = (np.arange(n) + 0.5 for n in shape[:2])
  # Masked is the middle half: all of the source's pixels that it touches, less
  # what a resampled window needs beyond it.
  edge = extent / 4 - 2**0.5 * (2 * max(extent / stored, 1) + 1)
  hidden = (abs(rows - y) < edge)[:, None] & (abs(columns - x) < edge)
  random = np.random.default_rng(0)
  picture = random.integers(0, 256, shape, np.uint8)
  noise = random.integers(0, 256, (2, NUM_FRAMES, *shape), np.uint8)
  results = []
  for k in range(2):
    path = tmp_path / f"{k}.mkv"
    synthetic.write_video(
      path,
      num_frames=NUM_FRAMES,
      image=lambda i, w, h, k=k: np.where(
        hidden[..., None], noise[k, i], picture
      ),
      codecs=("ffv1", "pcm_s16le"),
      pixels="bgr0",
    )
    person = Witness(side)
    size = clip.track.expression.shape[1]
    frames = reenactor.inpaint_frames(
      source_of(clip._replace(path=path), person, stored),
      fill.read(path, clip.track.times, np.arange(NUM_FRAMES)),
      np.zeros((NUM_FRAMES, size), np.float32),
      np.zeros(size, bool),
    )
    results.append(([after for _, after in frames], person.shown))
  (one, first), (two, second) = results
  for a, b in zip(first, second, strict=True):
    np.testing.assert_array_equal(a[0], b[0])
    np.testing.assert_array_equal(a[1], b[1])
  present = clip.track.present
  assert hidden.sum() > 50
  for i in np.flatnonzero(present):
    np.testing.assert_array_equal(one[i], two[i])


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("face", [None, 1, "me.jpg"])
@pytest.mark.parametrize("force", [False, True])
def test_who_is_looked_for(monkeypatch, capsys, kept, face, force):
  look = np.ones(4, np.float32) if kept else np.zeros(0, np.float32)
  known = types.SimpleNamespace(
    look=look,
    tracking_options=dict,
    identity=None,
    stats=None,
    resembles=lambda look: None,
  )
  person = GreyPerson()
  person.people = []
  monkeypatch.setattr(source_lib, "person_in", lambda *args: known)
  asked = {}

  def track(path, **options):
    asked.update(options)
    return types.SimpleNamespace(track=types.SimpleNamespace(look=look))

  monkeypatch.setattr(source_lib.seen, "track", track)
  monkeypatch.setattr(Person, "with_identity", lambda self, *who: self)
  monkeypatch.setattr(
    video_reader,
    "probe",
    lambda path: types.SimpleNamespace(sha256="", name="a", remarks=("odd",)),
  )
  source_lib.open_source(
    *(person, "a.mp4"), face=face, force=force, marking=Marking("none")
  )
  assert asked["face"] == face and asked["refuse"] != force
  assert (asked["expected"] is None) == (not kept)
  out = capsys.readouterr().out
  assert ("cannot be decided" in out) == (not kept)
  assert "a: odd." in out
