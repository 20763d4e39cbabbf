"""`pir-jax COMMAND` and `python -m pir_jax COMMAND` run every command."""

import pathlib
import runpy
import signal
import sys
import time

import pytest

from pir_jax import __main__ as program

PACKAGE = pathlib.Path(__file__).parents[1] / "pir_jax"
# What stands beside the commands at the root of the package.
OTHERS = {"__init__", "__main__", "assets", "types", "ranges"}


def test_every_command_is_listed():
  files = {path.stem for path in PACKAGE.glob("*.py")}
  assert set(program.COMMANDS) == files - OTHERS


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_the_list_has_a_line_for_each(arguments, monkeypatch, capsys):
  monkeypatch.setattr(sys, "argv", ["pir-jax", *arguments])
  program.main()
  lines = capsys.readouterr().out.splitlines()
  for name, summary in program.COMMANDS.items():
    assert f"  {name:11}{summary}" in lines
  assert max(map(len, lines)) <= 80


def test_an_unknown_command_is_one_sentence(monkeypatch, capsys):
  monkeypatch.setattr(sys, "argv", ["pir-jax", "portrait"])
  with pytest.raises(SystemExit) as stopped:
    program.main()
  assert stopped.value.code == 1
  (line,) = capsys.readouterr().err.splitlines()
  assert "no command 'portrait'" in line and "reenact" in line


def test_a_command_gets_the_other_arguments(monkeypatch):
  calls = []
  monkeypatch.setattr(
    runpy,
    "run_module",
    lambda name, **options: calls.append((name, options, sys.argv[1:])),
  )
  monkeypatch.setattr(sys, "argv", ["pir-jax", "train", "--workdir=runs/me"])
  program.main()
  options = {"run_name": "__main__", "alter_sys": True}
  assert calls == [("pir_jax.train", options, ["--workdir=runs/me"])]


def test_an_interruption_while_modules_are_loaded_is_a_word(
  monkeypatch, capsys
):
  handler = signal.signal(signal.SIGINT, signal.default_int_handler)

  def interrupted(*args, **options):
    signal.raise_signal(signal.SIGINT)

  monkeypatch.setattr(sys, "argv", ["pir-jax", "cache"])
  monkeypatch.setattr(program.runpy, "run_module", interrupted)
  try:
    with pytest.raises(SystemExit) as error:
      program.main()
  finally:
    signal.signal(signal.SIGINT, handler)
  assert error.value.code == 130
  assert capsys.readouterr().err == "stopped.\n"


def test_an_interruption_is_not_lost_while_garbage_is_looked_for():
  def _xla_gc_callback():
    signal.raise_signal(signal.SIGINT)
    return "went on"

  handler = signal.signal(signal.SIGINT, program._interrupt)
  try:
    with pytest.raises(KeyboardInterrupt):
      assert _xla_gc_callback() == "went on"
      time.sleep(5)
  finally:
    signal.signal(signal.SIGINT, handler)
