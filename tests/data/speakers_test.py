"""Many people: lists, folds of speakers, sound in step, equal shares."""

import collections
import shutil

import numpy as np
import pytest

from pir_jax.data import records, speakers, synthetic
from pir_jax.data.dataset import Clip, Dataset
from pir_jax.data.sources import FrameSource, SpeechSource
from pir_jax.runs.experiment import Data
from pir_jax.types import ConfigError, InputError


@pytest.fixture(scope="module")
def people(tmp_path_factory):
  """Clips a, b, c and d of 3, 3, 2 and 2 s."""
  folder = tmp_path_factory.mktemp("people")
  for i, name in enumerate("abcd"):
    path = folder / name
    frames = 75 if i < 2 else 50
    made = synthetic.write_synthetic(path, num_frames=frames, side=16, seed=i)
    made.source = f"{name}.mp4"
    made.save(path)
  return folder


def _write(folder, text):
  (folder / "list.tsv").write_text(text)
  return folder / "list.tsv"


LIST = "file\tspeaker\nc.mp4\tOne\na.mp4\tOne\nb.mp4\tTwo\nd.mp4\tThree\n"


def test_a_list_is_read_and_further_columns_left_alone(tmp_path):
  path = _write(
    tmp_path, "x\tspeaker\tfile\tshift\n1\tMe\ta b.mp4\t-2\n1\tI\tb\t"
  )
  assert speakers.read(path) == {
    "a b.mp4": speakers.Entry("Me", -2),
    "b": speakers.Entry("I", None),
  }


@pytest.mark.parametrize(
  "text, message",
  [
    ("file\tperson\n", "no column 'speaker'"),
    ("", "no column 'file'"),
    ("file\tspeaker\na.mp4\t\n", "line 2: file or speaker is empty"),
    ("file\tspeaker\na\tb\na\tb\n", "line 3: a is there twice"),
    ("file\tspeaker\tshift\na\tb\t1.5\n", "shift='1.5' must be a whole number"),
  ],
)
def test_a_wrong_list_is_refused_with_its_line(tmp_path, text, message):
  with pytest.raises(InputError, match=message):
    speakers.read(_write(tmp_path, text))


def test_a_list_that_cannot_be_read_is_refused(tmp_path):
  (tmp_path / "x.tsv").write_bytes(b"f\x01\x81\x00")
  for name in "x.tsv", "none.tsv":
    with pytest.raises(InputError, match="cannot be read|is no text"):
      speakers.read(tmp_path / name)


def test_every_speaker_is_held_out_once_with_all_their_clips(people, tmp_path):
  path = _write(tmp_path, LIST)
  whole = Dataset.open([people / name for name in "abcd"])
  held = collections.Counter()
  for fold in range(3):
    data = speakers.split(whole, path, fold, 3)
    out = {clip.speaker for clip in data if len(clip.rows("held_out"))}
    assert len(out) == 1
    for clip in data:
      counts = [len(clip.rows(split)) for split in ("train", "held_out")]
      assert sorted(counts) == [0, len(clip.stored)]
      assert (counts[0] == 0) is (clip.speaker in out)
      held[clip.manifest.source] += counts[0] == 0
  assert held == dict.fromkeys(["a.mp4", "b.mp4", "c.mp4", "d.mp4"], 1)


def test_statistics_are_of_those_who_are_not_held_out(people, tmp_path):
  data = speakers.split(
    Dataset.open([people / "a", people / "b"]), _write(tmp_path, LIST), 0, 2
  )
  (kept,) = [clip for clip in data if len(clip.rows("train"))]
  np.testing.assert_allclose(
    data.space.expression_mean, kept.manifest.expression_mean, rtol=1e-6
  )


def test_clips_that_no_line_names_are_left_out(people, tmp_path):
  whole = Dataset.open([people / name for name in "ab"])
  path = _write(tmp_path, "file\tspeaker\na.mp4\tOne\n")
  (only,) = speakers.split(whole, path, 0, 0)
  assert only.speaker == "One"
  assert only.manifest == whole[0].manifest
  with pytest.raises(InputError, match="names no clip of the data"):
    speakers.split(Dataset(whole[1:]), path, 0, 0)


def test_folds_that_cannot_be_are_refused(people, tmp_path):
  whole, path = Dataset.open([people / "a"]), _write(tmp_path, LIST)
  for fold, num_folds, message in (
    (2, 2, "fold=2 must"),
    (0, 2, "is more than"),
  ):
    with pytest.raises(ConfigError, match=message):
      speakers.split(whole, path, fold, num_folds)
  with pytest.raises(ConfigError, match="needs a list of speakers"):
    Data(path=str(people / "a"), num_folds=2).open()


@pytest.mark.parametrize("shift", [-2, 0, 3])
def test_late_sound_is_put_in_step(people, tmp_path, shift):
  run = Clip.open(people / "a").speech()[0]
  ticks = np.arange(len(run.valid), dtype=np.float32)
  # Sound that tells its own tick, heard `shift` ticks after the lips.
  late = run._replace(
    waveform=np.repeat(ticks - shift, records.SAMPLES_PER_TICK),
    expression=np.repeat(ticks[:, None], 2, 1),
  )
  moved = records.in_step(late, shift)
  assert len(moved.valid) == len(ticks) - abs(shift)
  every = moved.waveform[:: records.SAMPLES_PER_TICK]
  np.testing.assert_array_equal(every, moved.expression[:, 0])
  assert moved.start - run.start == moved.expression[0, 0]


def test_sound_whose_shift_is_not_known_teaches_nothing(people, tmp_path):
  path = _write(tmp_path, "file\tspeaker\tshift\na.mp4\tA\t\nb.mp4\tB\t1\n")
  data = speakers.split(Dataset.open([people / "a", people / "b"]), path, 0, 0)
  plain = Clip.open(people / "b").speech()[0]
  assert data[0].speech() == []
  assert len(data[1].speech()[0].valid) == len(plain.valid) - 1


def test_everyone_has_as_many_training_windows(people, tmp_path):
  data = speakers.split(
    Dataset.open([people / name for name in "abd"]),
    _write(tmp_path, LIST),
    0,
    0,
  )
  source = SpeechSource(data, num_frames=20)
  run_of = collections.Counter(run for run, _ in source._rows)
  assert len(set(run_of.values())) == 1
  # Every window of the one who has most, and none twice.
  most = [row for row in source._rows if row[0] == 0]
  assert len(set(most)) == len(most)


def test_a_folder_may_be_moved(people, tmp_path):
  shutil.copytree(people / "a", tmp_path / "it's a copy")
  data = speakers.split(
    Dataset.open(tmp_path / "it's a copy"), _write(tmp_path, LIST), 0, 0
  )
  assert data[0].speaker == "One"


def test_in_pictures_too_every_speaker_has_as_many_frames(people, tmp_path):
  path = _write(tmp_path, LIST)
  whole = Dataset.open([people / name for name in "abcd"])
  data = speakers.split(whole, path, 0, 0)
  source = FrameSource(data, resolution=16)
  items = [source[i] for i in range(len(source))]
  by_clip = collections.Counter(int(item["clip"]) for item in items)
  by_speaker = collections.Counter()
  for clip, count in by_clip.items():
    by_speaker[data[clip].speaker] += count
  assert len(set(by_speaker.values())) == 1 and len(by_speaker) == 3
  # What is there again is the same frame, and every frame is there.
  rows = {int(item["row"]) for item in items}
  assert rows == set(range(sum(len(clip.rows("train")) for clip in data)))
  held_out = FrameSource(data, resolution=16, split="held_out")
  assert len(held_out) == sum(len(clip.rows("held_out")) for clip in data)
