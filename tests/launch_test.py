"""The launch scripts: what they call exists, and they start again rightly."""

import os
import pathlib
import re
import signal
import subprocess
import time

import pytest
import yaml
from absl import flags

from pir_jax import train  # noqa: F401  (train defines its flags)
from pir_jax.models import triplane_generator
from pir_jax.runs.experiment import Experiment
from pir_jax.runtime import loop
from pir_jax.stages import triplane

LAUNCH = pathlib.Path(__file__).parents[1] / "experiments" / "launch"
SCRIPTS = sorted(path.name for path in LAUNCH.glob("*.sh"))
# In place of Python: counts its starts, notes what it was given, ends with the
# next of CODES; with "w" it is finished.
STUB = """#!/bin/bash
echo "$@" >>"$LOG"
count=$(grep -c . "$LOG")
read -r -a codes <<<"$CODES"
code=${codes[$(((count - 1) / PROCESSES))]}
if [ "$code" = wait ]; then
  trap 'exit 0' TERM
  touch "$LOG.waits"
  while :; do sleep 0.05; done
fi
if [ "$code" = w ]; then touch "$WORKDIR/finished"; exit 0; fi
exit "$code"
"""


@pytest.fixture
def machine(tmp_path):
  """An environment whose Python, ssh, srun and scontrol are stubs."""
  tools, work = tmp_path / "tools", tmp_path / "run"
  tools.mkdir()
  work.mkdir()
  for name, text in {
    "python": STUB,
    "ssh": '#!/bin/bash\nshift\nexec bash -c "$1"\n',
    "srun": '#!/bin/bash\nshift\nexec "$@"\n',
    "scontrol": '#!/bin/bash\necho "$@" >>"$LOG.scontrol"\n',
  }.items():
    (tools / name).write_text(text)
    (tools / name).chmod(0o755)
  # As `make test PYTHON=python3.12` exports it.
  outside = {k: v for k, v in os.environ.items() if k != "PYTHON"}
  return outside | {
    "PATH": f"{tools}:{os.environ['PATH']}",
    "LOG": str(tmp_path / "log"),
    "WORKDIR": str(work),
    "PROCESSES": "1",
    "HOSTS": "a b",
    "SSH": "ssh",
    "PAUSE": "0",
    "SLURM_JOB_ID": "7",
  }


def start(name, env, codes):
  command = [
    "bash",
    str(LAUNCH / name),
    f"--workdir={env['WORKDIR']}",
    "--x=a b",
  ]
  return subprocess.Popen(
    command,
    env=env | {"CODES": codes},
    cwd=pathlib.Path(env["LOG"]).parent,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )


def starts(env):
  return pathlib.Path(env["LOG"]).read_text().splitlines()


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_sound_and_ask_for_a_workdir(name, machine):
  subprocess.run(["bash", "-n", LAUNCH / name], check=True)
  done = subprocess.run(
    ["bash", LAUNCH / name], env=machine, capture_output=True, text=True
  )
  assert done.returncode == 1
  assert "say --workdir=DIRECTORY" in done.stderr


def test_every_flag_is_one_of_train():
  fields = {
    name
    for path in LAUNCH.iterdir()
    for name in re.findall(r"--(config\.[a-z_.]+)=", path.read_text())
  }
  experiment = Experiment(
    stage=triplane.Config(model=triplane_generator.Config()),
    loop=loop.Config(num_steps=1),
  )
  assert fields
  for field in fields:
    value = experiment
    for part in field.split(".")[1:]:
      value = getattr(value, part)
  calls = "".join(
    text[text.index("pir_jax.train") :]
    for text in ((LAUNCH / name).read_text() for name in SCRIPTS)
  )
  known = {"coordinator", "num_processes", "process_id", "distributed"}
  assert known <= set(flags.FLAGS)
  calls = re.sub("^#SBATCH.*", "", calls, flags=re.MULTILINE)
  for name in re.findall(r"--(\w+)=", calls):
    assert name in flags.FLAGS, name


@pytest.mark.parametrize(
  ("codes", "code", "requeued"),
  [("w", 0, False), ("0", 0, True), ("1", 1, False), ("75", 0, True)],
)
def test_slurm_queues_again_what_is_not_finished(
  machine, codes, code, requeued
):
  run = start("slurm.sh", machine, codes)
  assert run.wait(20) == code
  assert pathlib.Path(machine["LOG"] + ".scontrol").exists() == requeued
  (given,) = starts(machine)
  assert given.endswith(
    f"pir_jax.train --distributed --workdir={machine['WORKDIR']} --x=a b"
  )


@pytest.mark.parametrize(
  ("codes", "code"), [("w", 0), ("0", 75), ("1", 1), ("75", 75), ("137", 137)]
)
def test_a_pod_fails_where_it_is_to_be_started_again(machine, codes, code):
  assert start("pod.sh", machine, codes).wait(20) == code


def test_hosts_are_all_started_again_until_finished(machine):
  machine["PROCESSES"] = "2"
  assert start("hosts.sh", machine, "75 0 w").wait(20) == 0
  given = starts(machine)
  assert len(given) == 6
  for i in range(2):
    assert (
      sum(
        f"--coordinator=a:8476 --num_processes=2 --process_id={i} " in line
        for line in given
      )
      == len(given) / 2
    )
  assert all(line.endswith("--x=a b") for line in given)


def test_hosts_stop_at_a_mistake(machine):
  machine["PROCESSES"] = "2"
  assert start("hosts.sh", machine, "1 w").wait(20) == 1
  assert len(starts(machine)) == 2


@pytest.mark.parametrize(("name", "code"), [("hosts.sh", 0), ("pod.sh", 75)])
def test_a_notice_reaches_the_processes(machine, name, code):
  num = 2 if name == "hosts.sh" else 1
  machine["PROCESSES"] = str(num)
  run = start(name, machine, "wait")
  end = time.monotonic() + 20
  log = pathlib.Path(machine["LOG"])
  while not log.exists() or len(starts(machine)) < num:
    assert time.monotonic() < end
    time.sleep(0.02)
  time.sleep(0.3)  # Until the stubs listen, too.
  run.send_signal(signal.SIGTERM)
  assert run.wait(20) == code
  assert len(starts(machine)) == num


def test_the_manifest_asks_for_a_whole_slice():
  manifest = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())
  assert manifest["kind"] == "JobSet"
  (job,) = manifest["spec"]["replicatedJobs"]
  spec = job["template"]["spec"]
  pod = spec["template"]["spec"]
  topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
  chips = eval(topology.replace("x", "*"))
  (container,) = pod["containers"]
  held = container["resources"]["limits"]["google.com/tpu"]
  assert spec["completions"] == spec["parallelism"] == chips // held
  assert (LAUNCH.parents[1] / container["command"][1]).exists()
  (rule,) = spec["podFailurePolicy"]["rules"]
  assert rule["onExitCodes"]["containerName"] == container["name"]
