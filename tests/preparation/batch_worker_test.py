"""What kills a worker costs the clip it was at, and is reported."""

import os
import subprocess
import sys
import time

import pytest

from pir_jax.preparation import batch_worker, pipeline

# Keeps to the same lines as the real one, and does as the request says.
OBEDIENT = """
import json, os, signal, sys
for line in sys.stdin:
  do = json.loads(line)["do"]
  if do == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
  if do == "crash":
    os.kill(os.getpid(), signal.SIGSEGV)
  if do == "raise":
    raise ZeroDivisionError("a fault of ours")
  print(json.dumps({"value": os.getpid(), "reason": ""}), flush=True)
"""


@pytest.fixture
def obedient():
  made = batch_worker.Worker((sys.executable, "-c", OBEDIENT))
  yield made
  made.close()


@pytest.mark.parametrize(
  "do, reason",
  [
    ("kill", "memory"),
    ("crash", "SIGSEGV"),
    ("raise", "ZeroDivisionError: a fault of ours"),
  ],
)
def test_death_is_one_answer_and_the_next_request_is_done(obedient, do, reason):
  first = obedient.ask({"do": "work"})
  assert obedient.ask({"do": "work"}) == first  # The same process.
  died = obedient.ask({"do": do})
  assert died.value is None and reason in died.reason
  after = obedient.ask({"do": "work"})
  assert after.reason == "" and after.value != first.value


def test_process_ends_when_nobody_asks_any_more():
  process = subprocess.Popen(
    batch_worker.COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE
  )
  process.stdin.close()
  assert process.wait(timeout=60) == 0
  process.stdout.close()


def test_closed_worker_is_gone(obedient):
  pid = obedient.ask({"do": "work"}).value
  obedient.close()
  time.sleep(0.1)
  # Signal 0 asks whether the process is there.
  with pytest.raises(ProcessLookupError):
    os.kill(pid, 0)


def test_places_that_this_machine_does_not_see(tmp_path):
  request = {
    "do": "prepare",
    "video": str(tmp_path / "no.mp4"),
    "settings": pipeline.Settings().to_json(),
    "cut": None,
    "output": str(tmp_path / "elsewhere" / "clip"),
  }
  answer = batch_worker.answer(request)
  assert answer.value is None and "no.mp4 is not on machine" in answer.reason
  (tmp_path / "no.mp4").touch()
  answer = batch_worker.answer(request)
  assert answer.value is None and "elsewhere is not on machine" in answer.reason
  assert not (tmp_path / "elsewhere").exists()
