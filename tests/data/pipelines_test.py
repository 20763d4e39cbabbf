"""Batches: their contents, splits, exact resume and shares of processes."""

import dataclasses

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from pir_jax.data import (
  manifest,
  pipelines,
  records,
  sources,
  speech_augmentation,
  synthetic,
  track,
)
from pir_jax.data.dataset import Clip
from pir_jax.types import FaceBatch, InputError, SpeechBatch


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
  path = tmp_path_factory.mktemp("clips") / "me"
  synthetic.write_synthetic(path, num_frames=55, side=32)
  return path


def _equal(got, want):
  jax.tree.map(np.testing.assert_array_equal, got, want)


def _faces(clip, **options):
  options = {"resolution": 32, "batch_size": 4} | options
  return iter(pipelines.face_dataset(clip, **options))


def test_faces_are_what_was_stored(clip):
  known, _ = track.load_track(clip)
  batch = next(_faces(clip, shuffle=False))
  assert isinstance(batch, FaceBatch)
  for i in range(4):
    frame = synthetic.render_face(known, i, 32)
    want = frame.image.astype(np.float32) / 127.5 - 1
    np.testing.assert_array_equal(batch.image[i], want)
    np.testing.assert_array_equal(batch.mask[i, ..., 0], frame.mask)
    np.testing.assert_array_equal(batch.head[i, ..., 0], frame.head)
    np.testing.assert_array_equal(batch.mouth[i, ..., 0], frame.mouth)
  np.testing.assert_array_equal(batch.cameras.pose, known.pose[:4])
  np.testing.assert_array_equal(batch.expression, known.expression[:4])
  np.testing.assert_array_equal(batch.identity, [known.identity] * 4)
  assert batch.index.dtype == np.int32
  numbers = jax.tree.leaves(batch._replace(index=None))
  assert {a.dtype for a in numbers} == {np.dtype("float32")}


def test_a_smaller_mask_still_covers_the_face(clip):
  large = next(_faces(clip, shuffle=False)).mask
  small = next(_faces(clip, shuffle=False, resolution=13)).mask
  assert set(np.unique(small)) <= {0.0, 1.0}
  # A big pixel holds a small one's centre: where the face is, it must be set.
  at = ((np.arange(32) + 0.5) / 32 * 13).astype(int)
  assert np.all(small[:, at][:, :, at] >= large)


def test_the_splits_share_no_frame_and_miss_none(clip):
  seen = {}
  for split in ("train", "held_out"):
    source = sources.FrameSource(clip, resolution=32, split=split)
    seen[split] = {int(source[i]["index"]) for i in range(len(source))}
  edge = manifest.load_manifest(clip).held_out[0]
  assert seen["train"] == set(range(edge))
  assert seen["held_out"] == set(range(edge, 55))


def test_the_cache_changes_nothing(clip):
  kept = sources.FrameSource(clip, resolution=24)
  reread = sources.FrameSource(clip, resolution=24, cache_bytes=0)
  for _ in range(2):
    for item in (0, 5):
      _equal(kept[item], reread[item])
  assert len(kept._cache) == 2 and not reread._cache


def test_an_epoch_shows_every_frame_once_in_another_order(clip):
  source = sources.FrameSource(clip, resolution=32)
  stream = _faces(clip, batch_size=len(source), seed=3)
  one, two = next(stream), next(stream)
  assert not np.array_equal(one.expression, two.expression)
  for batch in (one, two):
    assert len(np.unique(batch.cameras.pose, axis=0)) == len(source)


@pytest.mark.parametrize("kind", ["face", "speech"])
def test_resume_is_exact(clip, tmp_path, kind):
  def start():
    if kind == "face":
      return _faces(clip, seed=5)
    return iter(
      pipelines.speech_dataset(clip, num_frames=10, batch_size=3, seed=5)
    )

  stream = start()
  for _ in range(17):  # past one epoch of faces
    next(stream)
  with ocp.CheckpointManager(tmp_path / "run") as saved:
    args = ocp.args.Composite(data=grain.checkpoint.CheckpointSave(stream))
    saved.save(17, args=args)
  want = [next(stream) for _ in range(3)]
  fresh = start()
  with ocp.CheckpointManager(tmp_path / "run") as saved:
    args = ocp.args.Composite(data=grain.checkpoint.CheckpointRestore(fresh))
    saved.restore(17, args=args)
  _equal([next(fresh) for _ in range(3)], want)


@pytest.mark.parametrize(
  "parts", [((0, 1, 2, 3), (4, 5, 6, 7)), ((0, 5), (3,))]
)
@pytest.mark.parametrize("kind", ["face", "speech"])
def test_processes_read_only_their_rows_of_the_same_batches(clip, kind, parts):
  def start(rows=None):
    if kind == "face":
      return _faces(clip, batch_size=8, seed=1, rows=rows)
    return iter(
      pipelines.speech_dataset(
        clip,
        num_frames=10,
        batch_size=8,
        seed=1,
        pauses=speech_augmentation.Config(share=0.5),
        rows=rows,
      )
    )

  whole = start()
  shares = [start(rows) for rows in parts]
  for _ in range(8):  # past one epoch
    want = next(whole)
    for rows, share in zip(parts, shares, strict=True):
      _equal(next(share), jax.tree.map(lambda a, r=rows: a[list(r)], want))


def test_one_pass_ends_and_processes_end_together(clip):
  total = sum(len(b.mask) for b in _faces(clip, batch_size=8, repeat=False))
  assert total == 50
  sizes = [
    len(b.mask)
    for b in _faces(clip, batch_size=8, repeat=False, rows=range(2, 4))
  ]
  assert sizes == [2] * 6
  with pytest.raises(ValueError, match="more than the 50"):
    _faces(clip, batch_size=64, repeat=False, rows=range(32))
  for rows in ((), (1, 0), (3, 4), (2, 2)):
    with pytest.raises(ValueError, match="must be ascending rows"):
      _faces(clip, batch_size=4, rows=rows)


def test_speech_windows_are_cut_in_step_with_their_sound(clip):
  source = sources.SpeechSource(clip, num_frames=10)
  (run,) = source._runs
  assert len(source) == 50 - 10 + 1
  item = source[7]
  np.testing.assert_array_equal(item["expression"], run.expression[7:17])
  np.testing.assert_array_equal(
    item["waveform"], run.waveform[7 * 640 : 17 * 640]
  )
  assert item["valid"].all()
  stream = iter(pipelines.speech_dataset(clip, num_frames=10, batch_size=2))
  batch = next(stream)
  assert isinstance(batch, SpeechBatch)
  assert batch.waveform.shape == (2, 6400)
  assert {a.dtype for a in jax.tree.leaves(batch)} == {
    np.dtype("float32"),
    np.dtype("int32"),
  }


@pytest.mark.parametrize("start", [0, 2, 20, 38, 40])
def test_a_window_has_the_sound_around_it(clip, start):
  source = sources.SpeechSource(clip, num_frames=10, margin=3)
  (run,) = source._runs
  item, tick = source[start], 640
  first = max(0, start - 3)
  stop = min(50, first + 16)
  assert item["offset"] == start - first
  assert item["length"] == (stop - first) * tick
  sound = item["waveform"]
  assert len(sound) == 16 * tick and not sound[item["length"] :].any()
  np.testing.assert_array_equal(
    sound[: item["length"]], run.waveform[first * tick : stop * tick]
  )


def test_training_speech_never_reaches_the_held_out_tail(clip):
  known, _ = track.load_track(clip)
  source = sources.SpeechSource(clip, num_frames=20)
  tail = known.expression[50:]
  for i in range(len(source)):
    rows = source[i]["expression"]
    assert not (rows[:, None] == tail).all(-1).any()


@pytest.mark.parametrize("num_frames", [3, 5, 20, 70])
def test_held_out_speech_counts_each_tick_of_the_tail_once(clip, num_frames):
  known, _ = track.load_track(clip)
  source = sources.SpeechSource(clip, num_frames=num_frames, split="held_out")
  items = [source[i] for i in range(len(source))]
  rows = np.concatenate([i["expression"][i["valid"] > 0] for i in items])
  np.testing.assert_array_equal(rows, known.expression[50:])
  if num_frames == 20:
    (item,) = items
    np.testing.assert_array_equal(item["expression"], known.expression[35:])


def test_a_short_run_is_padded_and_marked(clip):
  source = sources.SpeechSource(clip, num_frames=64)
  assert len(source) == 1
  item = source[0]
  np.testing.assert_array_equal(item["valid"], [1] * 50 + [0] * 14)
  assert not item["expression"][50:].any()
  assert not item["waveform"][50 * 640 :].any()
  assert len(item["waveform"]) == 64 * 640


def test_several_clips_keep_their_own_identity(clip, tmp_path):
  other = tmp_path / "other"
  synthetic.write_synthetic(other, num_frames=33, side=32, seed=9)
  source = sources.FrameSource([clip, other], resolution=32)
  assert len(source) == 50 + 30
  for path, item in ((clip, source[0]), (other, source[50])):
    want = np.float32(manifest.load_manifest(path).identity)
    np.testing.assert_array_equal(item["identity"], want)
  windows = sources.SpeechSource([clip, other], num_frames=10)
  assert len(windows) == 41 + 21


def test_refusals(clip, tmp_path):
  with pytest.raises(InputError, match="not a prepared clip"):
    _faces(tmp_path)
  with pytest.raises(InputError, match="no data"):
    _faces([])
  silent = tmp_path / "silent"
  synthetic.write_synthetic(silent, num_frames=22, side=32, sound=False)
  with pytest.raises(InputError, match="no speech"):
    sources.SpeechSource(silent, num_frames=10)
  (silent / records.FRAMES).unlink()
  with pytest.raises(InputError, match="is missing"):
    _faces(silent)


def test_batches_of_one_from_few_windows_are_endless(tmp_path):
  synthetic.write_synthetic(tmp_path / "me", num_frames=44)
  dataset = pipelines.speech_dataset(
    tmp_path / "me", num_frames=200, batch_size=1
  )
  iterator = iter(dataset)
  shapes = {next(iterator).waveform.shape for _ in range(3)}
  assert shapes == {(1, 200 * 640)}


def test_stage_3_is_shown_the_square_around_the_mask(clip):
  opened = Clip.open(clip)
  part = np.float32([0.5625, 0.59375, 0.5])
  parts = np.tile(part, (len(opened.track.times), 1))
  track = opened.track._replace(mask_window=parts)
  opened = dataclasses.replace(opened, track=track)
  whole = sources.FrameSource(opened, resolution=64)[3]
  near = sources.FrameSource(opened, resolution=32, around_mask=True)[3]
  rows, columns = slice(22, 54), slice(20, 52)
  # At half the side as many pixels of it are shown: no resampling but rounding.
  np.testing.assert_allclose(
    near["image"][4:-4, 4:-4],
    whole["image"][rows, columns][4:-4, 4:-4],
    atol=0.03,
  )
  point = np.float32([0.02, 0.03, 2.5])
  here, there = (
    (item["intrinsics"] @ point)[:2] / point[2] for item in (whole, near)
  )
  np.testing.assert_allclose(there, (here - part[:2]) / 0.5 + 0.5, atol=1e-5)
  kept = sources.FrameSource(opened, resolution=32)[3]
  np.testing.assert_array_equal(kept["intrinsics"], whole["intrinsics"])


def test_eyes_are_discs_of_their_own_width():
  landmarks = np.zeros((468, 2), np.float32)
  landmarks[[33, 133]] = [0.2, 0.5], [0.3, 0.5]
  landmarks[[362, 263]] = [0.6, 0.4], [0.8, 0.4]
  eyes = sources._eyes(landmarks, 100)
  assert eyes[50, 25] and eyes[40, 70]
  assert not eyes[50, 34] and not eyes[40, 47] and not eyes[80, 50]
  assert eyes.sum() == pytest.approx(np.pi * (7.5**2 + 15**2), rel=0.02)
  # Other landmarks than the mesh's say nothing of eyes.
  assert not sources._eyes(landmarks[:5], 100).any()
