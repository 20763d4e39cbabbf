"""What a user does wrong is one sentence, and leaves nothing behind."""

import re

import numpy as np
import pytest
import soundfile

from pir_jax.data import synthetic


@pytest.fixture
def expect_sentence(run_command):
  def expect(module, *arguments, says):
    code, _, errors = run_command(module, *arguments)
    assert code == 1, errors
    assert len(errors) == 1, errors
    assert says in errors[0], errors

  return expect


@pytest.fixture
def video(tmp_path):
  """A moving disc: a video in which no face can be seen."""
  path = tmp_path / 'no face; "here".mp4'
  synthetic.write_video(path, num_frames=12)
  return path


def test_video_that_is_not_there(expect_sentence, tmp_path):
  output = tmp_path / "data"
  arguments = ("--video=nowhere.mp4", f"--output={output}")
  expect_sentence("prepare", *arguments, says="nowhere.mp4")
  assert not output.exists()


def test_video_without_a_face(expect_sentence, tmp_path, video):
  output = tmp_path / "data"
  arguments = (f"--video={video}", f"--output={output}")
  expect_sentence("prepare", *arguments, says="face")
  assert not output.exists()
  assert list(tmp_path.iterdir()) == [video]


def test_truncated_video(expect_sentence, tmp_path, video):
  cut = tmp_path / "cut.mp4"
  cut.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
  arguments = (f"--video={cut}", f"--output={tmp_path / 'data'}")
  expect_sentence("prepare", *arguments, says="cut.mp4")
  assert not (tmp_path / "data").exists()


def test_speech_without_a_sample(expect_sentence, tmp_path):
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


def test_speech_for_a_video_that_is_not_there(
  expect_sentence, tmp_path, speech
):
  output = f"--output={tmp_path / 'out.mp4'}"
  expect_sentence(
    "reenact",
    f"--model={tmp_path}",
    "--video=x.mp4",
    f"--audio={speech}",
    output,
    says="x.mp4",
  )


def test_output_that_would_replace_the_source(
  expect_sentence, tmp_path, speech, video
):
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


def test_data_of_a_video_without_sound(expect_sentence, tmp_path):
  synthetic.write_synthetic(tmp_path / "data", num_frames=22, sound=False)
  expect_sentence(
    "train",
    "--config=experiments/expression.py:scratch",
    f"--config.data.path={tmp_path / 'data'}",
    f"--workdir={tmp_path / 'run'}",
    says="sound",
  )
  assert not (tmp_path / "run").exists()


def test_unknown_config_field(expect_sentence, tmp_path):
  expect_sentence(
    "train",
    "--config=experiments/triplane.py:demo",
    "--config.stage.modle=1",
    f"--workdir={tmp_path / 'run'}",
    says="modle",
  )
  assert not (tmp_path / "run").exists()


def test_unknown_variant_and_unknown_config(expect_sentence, tmp_path):
  workdir = f"--workdir={tmp_path / 'run'}"
  expect_sentence(
    "train", "--config=experiments/triplane.py:huge", workdir, says="huge"
  )
  expect_sentence("train", "--config=nowhere.py", workdir, says="nowhere.py")


def test_data_that_is_not_prepared(expect_sentence, tmp_path):
  expect_sentence(
    "train",
    "--config=experiments/triplane.py:demo",
    f"--config.data.path={tmp_path}",
    f"--workdir={tmp_path / 'run'}",
    says="not a prepared clip",
  )


def test_model_that_is_not_trained(expect_sentence, tmp_path):
  synthetic.write_synthetic(tmp_path / "data", num_frames=22)
  expect_sentence(
    "evaluate",
    f"--model={tmp_path}",
    f"--data={tmp_path / 'data'}",
    f"--output={tmp_path / 'report'}",
    says="holds no trained person",
  )
  assert not (tmp_path / "report").exists()


def test_speech_report_without_a_model_or_with_a_silent_voice(
  expect_sentence, tmp_path
):
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
  ("module", "missing"),
  [
    ("train", "--config"),
    ("reenact", "--model, --video, --audio, --output"),
    ("evaluate", "--model, --data, --output"),
    ("inspect", "--model, --output"),
    ("view", "--model"),
    ("prepare", "--video or --input, --output or --check"),
  ],
)
def test_missing_flags_are_named_and_help_explains_them(
  expect_sentence, run_command, module, missing
):
  expect_sentence(module, says=f"Missing required flags: {missing}.")
  code, output, _ = run_command(module, "--help")
  assert code == 0
  text = "\n".join(output)
  assert f"pir_jax.{module}" in text
  assert re.match("--[a-z]+", missing)[0] in text


@pytest.mark.parametrize(
  "module", ["app", "demo", "compile", "benchmark", "convert"]
)
def test_help_explains_itself(run_command, module):
  code, output, _ = run_command(module, "--help")
  assert code == 0
  text = "\n".join(output)
  assert f"pir_jax.{module}" in text
  assert "--" in text
