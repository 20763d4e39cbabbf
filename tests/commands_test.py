"""What a user does wrong is one sentence, and leaves nothing behind.

One process runs all commands of a test: loading JAX takes most of the time.
"""

import importlib
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from absl import flags

from pir_jax.data import synthetic
from pir_jax.runtime import app

ROOT = pathlib.Path(__file__).parents[1]
COMMANDS = [
  "prepare",
  "train",
  "reenact",
  "evaluate",
  "demo",
  "compile",
  "inspect",
  "benchmark",
  "convert",
]


def run_process(module, *arguments):
  """Runs a command as a user does; returns its exit code, output and errors."""
  result = subprocess.run(
    [sys.executable, "-m", f"pir_jax.{module}", *map(str, arguments)],
    cwd=ROOT,
    env={**os.environ, "XLA_FLAGS": ""},
    capture_output=True,
    text=True,
    check=False,
  )
  return result.returncode, result.stdout, result.stderr.splitlines()


@pytest.fixture
def expect_sentence(monkeypatch, capsys):
  """Runs a command in this process; it must end with a sentence and 1."""
  monkeypatch.chdir(ROOT)

  def expect(module, *arguments, says):
    # Only its own flags are set, whatever other tests have set before.
    command = importlib.import_module(f"pir_jax.{module}")
    saved = flags.FLAGS
    argv = [f"pir_jax/{module}.py", *map(str, arguments)]
    monkeypatch.setattr(sys, "argv", argv)
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
      app.run(command.main)
    error = capsys.readouterr().err
    assert end.value.code == 1, error
    assert error.count("\n") == 1 and says in error, error

  return expect


@pytest.fixture
def video(tmp_path):
  """A moving disc: a video in which no face can be seen."""
  path = tmp_path / 'no face; "here".mp4'
  synthetic.write_video(path, num_frames=12)
  return path


def test_video_that_is_not_there(tmp_path):
  output = tmp_path / "data"
  arguments = ("--video=nowhere.mp4", f"--output={output}")
  expect_sentence("prepare", *arguments, says="nowhere.mp4")
  assert not output.exists()


def test_video_without_a_face(tmp_path, video):
  output = tmp_path / "data"
  arguments = (f"--video={video}", f"--output={output}")
  expect_sentence("prepare", *arguments, says="face")
  assert not output.exists()
  assert list(tmp_path.iterdir()) == [video]


def test_truncated_video(tmp_path, video):
  cut = tmp_path / "cut.mp4"
  cut.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
  arguments = (f"--video={cut}", f"--output={tmp_path / 'data'}")
  expect_sentence("prepare", *arguments, says="cut.mp4")
  assert not (tmp_path / "data").exists()


def test_speech_without_a_sample(tmp_path):
  path = tmp_path / "speech.wav"
  soundfile.write(path, np.zeros(0, np.float32), 16000)
  arguments = [f"--model={tmp_path}", "--video=x.mp4", f"--audio={path}"]
  expect_sentence(
    "reenact", *arguments, f"--output={tmp_path / 'out.mp4'}", says="sound"
  )
  assert not (tmp_path / "out.mp4").exists()


@pytest.fixture
def speech(tmp_path):
  path = tmp_path / "speech.wav"
  soundfile.write(path, synthetic.speech_like(1.0, 16000), 16000)
  return path


def test_speech_for_a_video_that_is_not_there(tmp_path, speech):
  output = f"--output={tmp_path / 'out.mp4'}"
  expect_sentence(
    "reenact",
    f"--model={tmp_path}",
    "--video=x.mp4",
    f"--audio={speech}",
    output,
    says="x.mp4",
  )


def test_output_that_would_replace_the_source(tmp_path, speech, video):
  before = video.read_bytes()
  expect_sentence(
    "reenact",
    f"--model={tmp_path}",
    f"--video={video}",
    f"--audio={speech}",
    f"--output={video}",
    says="source itself",
  )
  assert video.read_bytes() == before


def test_data_of_a_video_without_sound(tmp_path):
  synthetic.write_synthetic(tmp_path / "data", num_frames=22, sound=False)
  expect_sentence(
    "train",
    "--config=experiments/expression.py:demo",
    f"--config.data.path={tmp_path / 'data'}",
    f"--workdir={tmp_path / 'run'}",
    says="sound",
  )
  assert not (tmp_path / "run").exists()


def test_unknown_config_field(tmp_path):
  expect_sentence(
    "train",
    "--config=experiments/triplane.py:demo",
    "--config.stage.modle=1",
    f"--workdir={tmp_path / 'run'}",
    says="modle",
  )
  assert not (tmp_path / "run").exists()


def test_unknown_variant_and_missing_config(tmp_path):
  workdir = f"--workdir={tmp_path / 'run'}"
  expect_sentence(
    "train", "--config=experiments/triplane.py:huge", workdir, says="huge"
  )
  expect_sentence("train", "--config=nowhere.py", workdir, says="nowhere.py")
  expect_sentence("train", workdir, says="--config")


def test_data_that_is_not_prepared(tmp_path):
  expect_sentence(
    "train",
    "--config=experiments/triplane.py:demo",
    f"--config.data.path={tmp_path}",
    f"--workdir={tmp_path / 'run'}",
    says="not a prepared clip",
  )


def test_model_that_is_not_trained(tmp_path):
  synthetic.write_synthetic(tmp_path / "data", num_frames=22)
  expect_sentence(
    "evaluate",
    f"--model={tmp_path}",
    f"--data={tmp_path / 'data'}",
    f"--output={tmp_path / 'report'}",
    says="not a training run",
  )
  assert not (tmp_path / "report").exists()


def test_speech_report_without_a_model_or_with_a_silent_voice(tmp_path):
  data = tmp_path / "data"
  synthetic.write_synthetic(data)
  soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
  given = ("evaluate", "--stage=expression", f"--model={tmp_path}")
  given += (f"--data={data}", f"--output={tmp_path / 'report'}")
  expect_sentence(*given, says="not a training run")
  expect_sentence(
    *given, f"--audio={tmp_path / 'silent.wav'}", says="the sound is silent"
  )
  assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
  "module",
  [
    "prepare",
    "train",
    "reenact",
    "evaluate",
    "demo",
    "compile",
    "inspect",
    "benchmark",
  ],
)
def test_help_explains_itself(module):
  result = subprocess.run(
    [sys.executable, "-m", f"pir_jax.{module}", "--help"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert f"pir_jax.{module}" in result.stdout
  assert "--" in result.stdout
