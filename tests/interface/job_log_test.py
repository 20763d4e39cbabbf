"""A log tells how far a job is, what it learnt, and why it failed."""

import pytest

from pir_jax.interface import job_log
from pir_jax.runtime import metric_writer, progress

TRAINING = """the run is runs/me/triplane
triplane from step 0, compiling ...
triplane 1/400  compiled and done in 14.2 s  loss 0.8223  norm/generator 1.305
triplane 100/400  0.471 s/step  1.03 GiB  loss 0.3086  norm/a 0.5  141 s left
""".splitlines()


def test_progress_of_training_and_of_frames():
  now = job_log.progress(TRAINING)
  assert now == ("triplane: step 100 of 400", 0.25, 141.0)
  now = job_log.progress([*TRAINING, "inpainting: 50 of 200 frames, 10 s"])
  assert now == ("inpainting: frame 50 of 200", 0.25, pytest.approx(30))
  now = job_log.progress(["fitting the head to 200 frames", ""])
  assert now == ("fitting the head to 200 frames", None, None)
  assert job_log.progress([]).share is None


def test_progress_reads_what_this_package_prints(tmp_path, monkeypatch, capsys):
  with metric_writer.Reporter(tmp_path, name="triplane", num_steps=8) as out:
    seconds = {"step_seconds": 2.0, "examples_per_second_per_device": 1.0}
    seconds |= {"data_wait_seconds": 0.0}
    out.scalars(2, {"loss": 0.5}, seconds)
  lines = capsys.readouterr().out.splitlines()
  assert job_log.progress(lines) == ("triplane: step 2 of 8", 0.25, 12.0)
  assert job_log.curves(lines) == {"triplane": [(2, 0.5)]}
  monkeypatch.setattr(progress, "EVERY", 0.0)
  assert len(list(progress.track("abcd", "tracking the face", 8))) == 4
  lines = capsys.readouterr().out.splitlines()
  sentence, share, _ = job_log.progress(lines)
  assert (sentence, share) == ("tracking the face: frame 4 of 8", 0.5)


def test_a_step_that_was_taken_again_counts_once():
  again = [
    "triplane 100/400  0.5 s/step  loss 0.25  141 s left",
    "inpainting 1/700  compiled and done in 6 s  loss nan",
  ]
  curves = job_log.curves([*TRAINING, *again])
  assert curves["triplane"] == [(1, 0.8223), (100, 0.25)]
  assert set(curves) == {"triplane", "inpainting"}


def test_the_reason_is_the_command_s_own_sentence():
  lines = ["train: something", "train: no data: make it.", "a log of others"]
  assert job_log.reason(lines, "train", 1) == "no data: make it."
  lines = ["source_copy: clip.mp4 is damaged."]
  reason = job_log.reason(lines, "interface.source_copy", 1)
  assert reason == "clip.mp4 is damaged."


def test_a_fault_of_ours_and_a_kill_are_sentences_too():
  lines = ["Traceback (most recent call last):", "KeyError: 'x'"]
  assert "the log has the details" in job_log.reason(lines, "train", 1)
  assert "memory" in job_log.reason(lines, "train", 137)


def test_a_log_of_any_bytes_and_none(tmp_path):
  assert job_log.read(tmp_path / "none.log") == []
  (tmp_path / "a.log").write_bytes(b"\xff\xfe" * (1 << 20) + b"\nlast")
  assert job_log.read(tmp_path / "a.log")[-1] == "last"
