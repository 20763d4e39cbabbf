"""Runs commands for the tests, without a start of Python for each.

Each runs in a fork of this process, which has imported the libraries and none
of ours: what takes seconds at a start. Reads a line of JSON for each from stdin
(module, arguments, environment, files for its output and its errors) and
answers with its exit code.
"""

import json
import os
import runpy
import sys

import absl.app  # noqa: F401
import av  # noqa: F401
import flax.nnx  # noqa: F401
import grain  # noqa: F401
import jax  # noqa: F401
import ml_collections.config_flags  # noqa: F401
import orbax.checkpoint  # noqa: F401
import soundfile  # noqa: F401

for line in sys.stdin:
  module, arguments, environment, *outputs = json.loads(line)
  child = os.fork()
  if child:
    status = os.waitpid(child, 0)[1]
    print(os.waitstatus_to_exitcode(status), flush=True)
    continue
  for descriptor, path in enumerate(("/dev/null", *outputs)):
    flags = os.O_WRONLY | os.O_CREAT if descriptor else os.O_RDONLY
    os.dup2(os.open(path, flags), descriptor)
  os.environ.update(environment)
  sys.path[0] = os.getcwd()
  sys.argv[1:] = arguments
  runpy.run_module(module, run_name="__main__", alter_sys=True)
  break
