"""One job at a time, in order; what is on disk is what is shown."""

import json
import sys
import time

import pytest

from pir_jax.interface import jobs
from pir_jax.types import InputError


def line(command):
  """A job's command is a program, and its name."""
  return [sys.executable, "-S", "-c", command[1]]


def opened(folder, **options):
  queue = jobs.Queue(folder, **{"to_line": line, "grace": 5.0, **options})
  queue.start()
  return queue


@pytest.fixture
def queue(tmp_path):
  queue = opened(tmp_path)
  yield queue
  queue.close()


def command(code):
  return ["train", code]


SLEEP = command("import time; print('begun', flush=True); time.sleep(60)")


def begun(queue, job):
  """Waits until a job has printed something."""
  end = time.monotonic() + 10
  path = queue.log(job)
  while not (path.exists() and path.read_text()):
    assert time.monotonic() < end
    time.sleep(0.01)


def test_jobs_run_one_at_a_time_in_order(queue, tmp_path):
  mark = tmp_path / "order"
  code = (
    "import sys, time\n"
    f"file = open({str(mark)!r}, 'a')\n"
    "print('in {0}', file=file, flush=True); time.sleep(0.05)\n"
    "print('out {0}', file=file, flush=True)"
  )
  made = [
    queue.add(name, "train", name, [command(code.format(name))])
    for name in "abc"
  ]
  assert all(queue.wait(job.name, 10.0).state == jobs.DONE for job in made)
  places = [f"{way} {name}" for name in "abc" for way in ("in", "out")]
  assert mark.read_text().splitlines() == places


def test_a_failure_is_the_command_s_sentence_and_the_queue_goes_on(queue):
  code = (
    "import sys\nprint('some figures')\n"
    "print('train: data is missing: make it.', file=sys.stderr)\nsys.exit(1)"
  )
  never = command("open('never', 'w')")
  bad = queue.add("a", "train", "Training", [command(code), never])
  good = queue.add("b", "train", "Training", [command("pass")])
  bad = queue.wait(bad.name, 10.0)
  assert (bad.state, bad.step) == (jobs.FAILED, 0)
  assert bad.sentence == "data is missing: make it."
  assert queue.wait(good.name, 10.0).state == jobs.DONE


def test_stopping_goes_on_with_the_next(queue):
  running = queue.add("a", "train", "Training", [command("pass"), SLEEP])
  waiting = queue.add("b", "train", "Training", [SLEEP])
  after = queue.add("c", "train", "Training", [command("pass")])
  begun(queue, running)
  queue.stop(waiting.name)
  queue.stop(running.name)
  assert queue.wait(after.name, 10.0).state == jobs.DONE
  states = {job.person: job.state for job in queue.jobs()}
  assert states == {"a": jobs.STOPPED, "b": jobs.STOPPED, "c": jobs.DONE}
  assert queue.jobs("a")[0].step == 1  # The first command was done.


def test_a_restart_shows_the_same_and_goes_on_with_what_waits(tmp_path):
  queue = opened(tmp_path)
  running = queue.add("a", "train", "Training", [SLEEP])
  waiting = queue.add("b", "train", "Training", [command("print('here')")])
  begun(queue, running)
  queue.close()
  queue = opened(tmp_path)
  assert queue.wait(waiting.name, 10.0).state == jobs.DONE
  first, second = queue.jobs()
  assert (first.name, first.state) == (running.name, jobs.STOPPED)
  assert "begun" in queue.log(first).read_text()
  assert "here" in queue.log(second).read_text()
  queue.close()


def test_a_job_that_a_killed_server_left_is_stopped(tmp_path):
  queue = opened(tmp_path)
  done = queue.add("a", "train", "Training", [command("pass")])
  queue.wait(done.name, 10.0)
  queue.close()
  path = tmp_path / f"{done.name}.json"
  path.write_text(
    json.dumps({**json.loads(path.read_text()), "state": "running"})
  )
  (tmp_path / "damaged.json").write_text("{")
  queue = opened(tmp_path)
  (job,) = queue.jobs()
  assert job.state == jobs.STOPPED
  assert "start it again" in job.sentence
  queue.close()


def test_the_same_twice_is_refused_and_so_are_too_many(queue):
  queue.add("a", "train", "Training Ann", [SLEEP])
  with pytest.raises(InputError, match="Training Ann is under way"):
    queue.add("a", "train", "Training Ann", [SLEEP])
  with pytest.raises(InputError, match="wait already"):
    for count in range(100):
      queue.add(str(count), "train", "Training", [SLEEP])


def test_forgetting_a_person_leaves_nothing(queue, tmp_path):
  job = queue.add("a", "train", "Training", [SLEEP])
  begun(queue, job)
  queue.forget("a")
  assert not queue.jobs("a")
  assert not list(tmp_path.iterdir())


def test_an_ended_job_is_reported(tmp_path):
  ended = []
  queue = opened(tmp_path, on_end=ended.append)
  job = queue.add("a", "train", "Training", [command("pass")])
  queue.wait(job.name, 10.0)
  queue.close()
  assert [(job.name, job.state) for job in ended] == [(job.name, jobs.DONE)]


def test_commands_are_arguments_and_never_a_shell_s():
  quoted = "--video=a 'b' \"c\"; rm -rf $HOME"
  assert jobs.command_line(["prepare", quoted])[-2:] == [
    "pir_jax.prepare",
    quoted,
  ]
