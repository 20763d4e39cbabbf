"""Thousands of broken files and odd configs: a sentence each, no traceback.

`make test-slow` runs all of it; FUZZ=N takes another number of each.
"""

import math
import os
import random
import signal

import pytest
import soundfile

from experiments import expression, inpainting, triplane
from pir_jax import ranges
from pir_jax.data import synthetic
from pir_jax.inference import person
from pir_jax.media import video_reader
from pir_jax.models import triplane_generator
from pir_jax.preparation import pipeline
from pir_jax.profiling import abstract_stage
from pir_jax.runs.experiment import mesh_for
from pir_jax.types import InputError
from tests.ranges_test import numbers

COUNT = int(os.environ.get("FUZZ", "2000"))
HANGS = 20  # Seconds.

pytestmark = pytest.mark.slow


class Hang(Exception):
  """Something took longer than a user waits."""


@pytest.fixture
def in_time():
  def ring(number, frame):
    raise Hang

  signal.signal(signal.SIGALRM, ring)
  yield lambda: signal.alarm(HANGS)
  signal.alarm(0)


KINDS = {
  "a.mp4": {},
  "a.mov": {},
  "a.mkv": {},
  "a.webm": {},
  "a.avi": {},
  "a.ts": {},
  "a.mpg": {"codecs": ("mpeg2video", "mp2")},
  "a.wmv": {"codecs": ("wmv2", "wmav2")},
  "a.flv": {"codecs": ("flv", "aac")},
  "b.mkv": {"codecs": ("ffv1", "flac"), "pixels": "yuva420p"},
  "c.mkv": {"codecs": ("mjpeg", "libopus"), "pixels": "yuvj420p"},
  "d.mp4": {"codecs": ("libx265", "aac"), "pixels": "yuv420p10le"},
  "e.mp4": {"codecs": ("libsvtav1", "aac")},
}


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
  """Whole files of every kind that this FFmpeg writes."""
  folder = tmp_path_factory.mktemp("seeds")
  sound = synthetic.speech_like(0.5, 48000)
  for name, options in KINDS.items():
    options = {"sound": sound, "sound_rate": 48000} | options
    try:
      synthetic.write_video(folder / name, num_frames=8, **options)
    except (ValueError, OSError):
      (folder / name).unlink(missing_ok=True)
  for kind in ("wav", "flac", "ogg", "mp3"):
    soundfile.write(folder / f"s.{kind}", sound, 48000)
  soundfile.write(folder / "f.wav", 30000 * sound, 48000, "FLOAT")
  return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def mutated(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
  """Flips bits, cuts, repeats, wipes, or mixes in a part of another file."""
  data = bytearray(data)
  for _ in range(rng.choice([1, 1, 2, 5, 40])):
    place = rng.randrange(len(data))
    kind = rng.randrange(7)
    if kind == 0:
      data[place] ^= 1 << rng.randrange(8)
    elif kind == 1:
      data[place] = rng.choice([0, 1, 127, 128, 255])
    elif kind == 2:
      del data[place + 1 :]
    elif kind == 3:
      del data[place : place + rng.randrange(1, 64)]
    elif kind == 4:
      data[place:place] = data[place : place + rng.randrange(1, 512)]
    elif kind == 5:
      length = rng.randrange(1, 64)
      data[place : place + length] = rng.randbytes(length)
    else:
      other = rng.choice(others)
      start = rng.randrange(len(other))
      data[place:] = other[start : start + len(data)]
    if not data:
      return b"\0"
  return bytes(data)


def test_no_mutated_file_ends_in_a_traceback(seeds, tmp_path, in_time, capsys):
  rng = random.Random(0)
  names, others = list(seeds), list(seeds.values())
  settings = pipeline.Settings()
  faults = []
  for number in range(COUNT):
    name = rng.choice(names)
    data = mutated(seeds[name], others, rng)
    # Every third file has a name that says something else.
    path = tmp_path / f"{number}{name[1:] if number % 3 else '.mp4'}"
    path.write_bytes(data)
    for use in (
      lambda path: pipeline.check(path, settings),
      person.read_speech,
      video_reader.probe,
    ):
      in_time()
      try:
        use(path)
      except InputError as error:
        assert str(error).strip(), path
      except Hang:
        faults.append((number, name, "hangs"))
      except Exception as error:
        faults.append((number, name, repr(error)[:200]))
    signal.alarm(0)
    path.unlink()
    if number % 100 == 0:
      capsys.readouterr()
  assert not faults, f"{len(faults)} faults: {faults[:10]}"
  assert list(tmp_path.iterdir()) == []


VALUES = {
  int: (0, 1, 2, 3, 5, 7, 8, 16, 33, 64, 100, 255, 65536, 10**12, -1, 1.5),
  float: (0.0, 1e-9, 0.3, 1.0, 2.0, 7.5, 1e6, 1e300, -1.0, math.nan, math.inf),
}
FILES = (expression, triplane, inpainting)


def test_no_random_config_ends_in_a_traceback(in_time, capsys):
  rng = random.Random(0)
  faults, built = [], 0
  renderer = triplane_generator.Config(
    channel_base=256, channel_max=8, plane_resolution=16, constant_side=8
  )
  for _ in range(COUNT):
    file = rng.choice(FILES)
    experiment = file.get_config(rng.choice(["demo", "small", "scratch"]))
    changes = []
    for path, config, field, kind in rng.sample(
      list(numbers(experiment)), rng.choice([1, 1, 2, 4])
    ):
      value = rng.choice([*VALUES[kind], "x", None, True])
      if isinstance(getattr(config, field.name), tuple):
        value = (value,) * rng.choice([1, 2, 3])
      setattr(config, field.name, value)
      changes.append(f"{path}={value!r}")
    in_time()
    try:
      ranges.check(experiment)
      stage = abstract_stage.make_stage(
        experiment, renderer, mesh_for(experiment), shapes_only=True
      )
      stage.abstract_state()
      abstract_stage.make_batch(experiment, stage)
      built += 1
    except InputError as error:
      assert str(error).strip(), changes
    except Hang:
      faults.append((file.__name__, changes, "hangs"))
    except Exception as error:
      faults.append((file.__name__, changes, repr(error)[:200]))
    signal.alarm(0)
    capsys.readouterr()
  assert not faults, f"{len(faults)} faults: {faults[:10]}"
  assert built > COUNT // 20
