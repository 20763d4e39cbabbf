"""Prepared clips on disk: what goes in comes out, whole or not at all."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.numpy
from array_record.python import array_record_module

from pir_jax.data import manifest, records, synthetic, track
from pir_jax.data.dataset import Dataset
from pir_jax.types import SAMPLE_RATE, InputError


def _silence(known):
  return np.zeros(round(len(known.times) / 25 * SAMPLE_RATE), np.float32)


def _write(path, known, frames, **options):
  video = synthetic.video_info(known, 32)
  return records.write_dataset(
    path,
    known,
    frames,
    options.pop("waveform", _silence(known)),
    opening=known.expression[:, 0],
    video=video,
    expression_names=synthetic.NAMES,
    **options,
  )


def _frames(known, indices, side=32):
  return [synthetic.render_face(known, int(i), side) for i in indices]


def test_everything_comes_back(tmp_path):
  known = synthetic.synthetic_track(22, size=32)
  frames = _frames(known, range(22))
  drawn = {"region": "lower", "face_margin": 0.06}
  written = _write(tmp_path / "me", known, frames, masks=drawn)
  assert manifest.load_manifest(tmp_path / "me") == written
  assert written.masks == drawn
  back, stored = track.load_track(tmp_path / "me")
  np.testing.assert_array_equal(stored, np.arange(22))
  for name, value in known._asdict().items():
    np.testing.assert_array_equal(getattr(back, name), value, err_msg=name)
  reader = array_record_module.ArrayRecordReader(
    str(tmp_path / "me" / records.FRAMES)
  )
  record = safetensors.numpy.load(reader.read([7])[0])
  for name in ("image", "mask", "head", "mouth"):
    picture = np.asarray(records.decode_picture(record[name]))
    want = np.asarray(getattr(frames[7], name))
    want = want if name == "image" else want.astype(np.uint8) * 255
    np.testing.assert_array_equal(picture, want, err_msg=name)
  np.testing.assert_array_equal(record["pose"], known.pose[7])
  np.testing.assert_array_equal(record["expression"], known.expression[7])
  assert record["index"][0] == 7


def test_the_manifest_counts(tmp_path):
  known = synthetic.synthetic_track(44, size=32)
  present, filled = np.ones(44, bool), np.zeros(44, bool)
  present[10:15] = False
  filled[20:22] = True
  known = known._replace(present=present, interpolated=filled)
  known.expression[10:15] = np.nan
  keep = np.flatnonzero(present & ~filled)
  got = _write(tmp_path / "me", known, _frames(known, keep))
  assert (got.num_frames, got.num_with_face) == (44, 37)
  assert (got.num_interpolated, got.num_records) == (2, 37)
  assert (got.train, got.held_out) == ([0, 40], [40, 44])
  train = known.expression[keep[keep < 40]]
  # float32 means of 33 rows.
  np.testing.assert_allclose(got.expression_mean, train.mean(0), rtol=1e-5)
  np.testing.assert_allclose(got.expression_std, train.std(0), rtol=1e-5)
  # The most closed 5 % of 33 frames are two; `_write` opens by the first unit.
  closed = train[np.argsort(train[:, 0])[:2]].mean(0)
  np.testing.assert_allclose(got.expression_closed, closed, rtol=1e-5)


def test_nothing_stays_when_the_frames_raise(tmp_path):
  known = synthetic.synthetic_track(22, size=32)

  def broken():
    yield from _frames(known, range(3))
    raise RuntimeError("boom")

  with pytest.raises(RuntimeError, match="boom"):
    _write(tmp_path / "me", known, broken())
  assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_replaced_unasked(tmp_path):
  known = synthetic.synthetic_track(22, size=32)
  path = tmp_path / "me"
  _write(path, known, _frames(known, range(22)))
  with pytest.raises(InputError, match="already there"):
    _write(path, known, _frames(known, range(22)))
  again = _write(path, known, _frames(known, range(5)), overwrite=True)
  assert again.num_records == 5
  assert manifest.load_manifest(path).num_records == 5
  other = tmp_path / "photos"
  other.mkdir()
  with pytest.raises(InputError, match="not a prepared clip"):
    _write(other, known, _frames(known, range(5)), overwrite=True)
  assert sorted(p.name for p in tmp_path.iterdir()) == ["me", "photos"]


def test_refusals(tmp_path):
  known = synthetic.synthetic_track(22, size=32)
  path = tmp_path / "me"
  absent = known._replace(present=known.times > 0.1)
  with pytest.raises(ValueError, match="no face in the track"):
    _write(path, absent, _frames(known, range(3)))
  with pytest.raises(ValueError, match="in order"):
    _write(path, known, _frames(known, [3, 2]))
  with pytest.raises(InputError, match="no frame shows a face"):
    _write(path, known, [])
  with pytest.raises(ValueError, match="not finite"):
    pose = np.where(np.arange(22)[:, None, None] == 4, np.nan, known.pose)
    _write(path, known._replace(pose=pose), [])
  with pytest.raises(ValueError, match="rows"):
    _write(path, known._replace(window=known.window[:5]), [])
  assert not list(tmp_path.iterdir())


def test_runs_keep_short_gaps_and_break_at_long_ones():
  known = synthetic.synthetic_track(120, size=32)
  present = np.ones(120, bool)
  present[[0, 1]] = present[20:30] = present[50:90] = False
  known = known._replace(present=present)
  wave = np.arange(120 * 640, dtype=np.float32)
  first, second = records.cut_clips(known, wave)
  assert (first.start, len(first.valid)) == (2, 48)
  assert (second.start, len(second.valid)) == (90, 30)
  np.testing.assert_array_equal(first.valid, present[2:50])
  assert first.waveform[0] == 2 * 640
  assert len(first.waveform) == 48 * 640
  np.testing.assert_array_equal(second.expression, known.expression[90:])
  back = records.decode_clip(records.encode_clip(first))
  for got, want in zip(back, first, strict=True):
    np.testing.assert_array_equal(got, want)


def test_frames_without_sound_are_not_speech():
  known = synthetic.synthetic_track(50, size=32)
  (run,) = records.cut_clips(known, np.ones(20 * 640 + 639, np.float32))
  assert len(run.valid) == 20
  assert not list(records.cut_clips(known, np.zeros(0, np.float32)))


def test_long_runs_are_parts_that_follow_at_once():
  num = 2 * records.LONGEST_RUN + 1
  known = synthetic.synthetic_track(num, size=32)
  wave = np.arange(num * 640, dtype=np.float32)
  runs = list(records.cut_clips(known, wave))
  assert len(runs) == 3
  assert max(len(run.valid) for run in runs) <= records.LONGEST_RUN
  np.testing.assert_array_equal(
    np.concatenate([run.waveform for run in runs]), wave
  )
  np.testing.assert_array_equal(
    np.concatenate([run.expression for run in runs]), known.expression
  )


def test_a_bad_manifest_is_a_sentence(tmp_path):
  with pytest.raises(InputError, match="not a prepared clip"):
    manifest.load_manifest(tmp_path)
  known = synthetic.synthetic_track(22, size=32)
  good = _write(tmp_path / "me", known, _frames(known, range(22)))
  file = tmp_path / "me" / "manifest.json"
  file.write_text("{")
  with pytest.raises(InputError, match="not readable JSON"):
    manifest.load_manifest(tmp_path / "me")
  values = dataclasses.asdict(good)
  file.write_text(json.dumps(values | {"version": 99}))
  with pytest.raises(InputError, match="version 99"):
    manifest.load_manifest(tmp_path / "me")
  del values["rate"]
  file.write_text(json.dumps(values))
  with pytest.raises(InputError, match="rate"):
    manifest.load_manifest(tmp_path / "me")


def test_the_face_space_pools_clips(tmp_path):
  tracks = [synthetic.synthetic_track(n, size=32, seed=n) for n in (22, 66)]
  paths = [tmp_path / str(i) for i in range(2)]
  for path, known in zip(paths, tracks, strict=True):
    _write(path, known, _frames(known, range(3)))
  space = Dataset.open(paths).space
  rows = np.concatenate(
    [t.expression[: len(t.times) * 10 // 11] for t in tracks]
  )
  # float32 sums of 80 rows.
  np.testing.assert_allclose(space.expression_mean, rows.mean(0), rtol=1e-5)
  np.testing.assert_allclose(space.expression_scale, rows.std(0), rtol=1e-5)
  assert space.identity_size == 3
  assert space.expression_names == synthetic.NAMES
  other = manifest.load_manifest(paths[1])
  other.expression_names[0] = "brow"
  other.save(paths[1])
  with pytest.raises(InputError, match="different face models"):
    _ = Dataset.open(paths).space
  # Principal components have the same names in every model.
  other = dataclasses.replace(
    manifest.load_manifest(paths[0]),
    face_model={"name": "bfm", "sha256": "b"},
  )
  other.save(paths[1])
  assert Dataset.open(paths[1:]).space.face_model == "b"
  with pytest.raises(InputError, match="different face models"):
    _ = Dataset.open(paths).space
