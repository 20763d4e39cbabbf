"""Runs a command: `python -m pir_jax COMMAND`, or `pir-jax COMMAND`."""

import os
import runpy
import signal
import sys
import threading
from types import FrameType

COMMANDS = {
  "prepare": "Prepare videos of people talking for training.",
  "train": "Train one of the three stages.",
  "reenact": "Make a person in a video speak other words.",
  "verify": "Report which marks a video bears, and whether they hold.",
  "evaluate": "Measure a trained person on held-out frames.",
  "inspect": "Show the implicit face: images, depth, a turntable, a mesh.",
  "view": "Show the implicit face live in a browser.",
  "export": "Write a person's networks to files to hand on.",
  "convert": "Convert a face model of another project.",
  "benchmark": "Measure the speed of the networks.",
  "compile": "Compile a training step for a TPU slice, without one.",
  "app": "Open a page in a browser that does all of this with buttons.",
  "cache": "Show or clear the compiled programs that are kept.",
  "demo": "Run the whole way on a packaged clip, or on your own.",
}


def main() -> None:
  """Runs the command that the first argument names, with the others."""
  name = sys.argv[1] if len(sys.argv) > 1 else "--help"
  if name in ("-h", "--help", "help"):
    print("pir-jax COMMAND [--flag=value ...]\n")
    for command, summary in COMMANDS.items():
      print(f"  {command:11}{summary}")
    print("\nEach takes --help, which lists its flags.")
    return
  if name not in COMMANDS:
    names = ", ".join(COMMANDS)
    print(f"pir-jax: no command {name!r}: say one of {names}.", file=sys.stderr)
    sys.exit(1)
  del sys.argv[1]
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _interrupt)
  try:
    runpy.run_module(f"pir_jax.{name}", run_name="__main__", alter_sys=True)
  except KeyboardInterrupt:  # While modules are loaded; `app` sees to the rest.
    print("stopped.", file=sys.stderr)
    sys.exit(130)


def _interrupt(number: int, frame: FrameType | None) -> None:
  """Raises KeyboardInterrupt, but not where nobody would see it.

  What is raised while Python looks for garbage (JAX has a callback there) is
  printed and ignored: a moment later it is elsewhere.
  """
  if frame is not None and frame.f_code.co_name == "_xla_gc_callback":
    threading.Timer(0.02, os.kill, (os.getpid(), number)).start()
    return
  raise KeyboardInterrupt


if __name__ == "__main__":
  main()
