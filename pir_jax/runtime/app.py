"""How every main starts: flags read, user errors told in one sentence."""

import pathlib
import signal
import sys
from collections.abc import Callable

import jax
from absl import app, flags, logging

from pir_jax import assets
from pir_jax.runtime import memory, preemption
from pir_jax.types import InputError


def run(main: Callable[..., None], topics: tuple[str, ...] = ()) -> None:
  """Runs `main` under absl; an InputError is one line and exit code 1.

  What was preempted and has saved ends with exit code 0 after SIGTERM, and with
  130 after Ctrl-C; so does what had nothing to save.

  Args:
    main: the command.
    topics: words of which the user must say one, without dashes; `main` is
      given it. Without any, `main` takes nothing.
  """

  def guarded(argv: list[str]) -> None:
    given = _topic(argv[1:], topics)
    # absl raises the level to INFO: other libraries' news are not the user's.
    logging.set_verbosity(logging.WARNING)
    # Orbax logs the traceback of what it then raises, too.
    logging.get_absl_logger().addFilter(lambda record: not record.exc_info)
    _keep_compilations()
    memory.keep_pages()
    # What is told to end cleans up as what is interrupted does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
      main(*given)
    except InputError as error:
      _fail(str(error))
    except preemption.Preempted as error:
      print(error, file=sys.stderr)
      sys.exit(error.code)
    except KeyboardInterrupt:
      print(
        "stopped: the same command goes on from what was saved, if anything.",
        file=sys.stderr,
      )
      sys.exit(130)
    except OSError as error:
      # A full disk, a folder that may not be written: not ours to explain more.
      _fail(f"{error.strerror or error}: {error.filename or 'no file named'}.")

  app.run(guarded, flags_parser=_parse)


def _parse(argv: list[str]) -> list[str]:
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    # ml_collections puts a whole traceback in the message of one flag.
    said = [line for line in str(error).splitlines() if line.strip()]
    _fail(f"{said[-1].removeprefix('ValueError: ')}; --help lists the flags.")
  except SyntaxError as error:  # --config names a file of something else.
    _fail(f"{error.filename} is not Python ({error.msg}): name an experiment.")
  except KeyError as error:  # ml_collections: a --config.field not there.
    _fail(f"{error.args[0]}; the Config dataclasses name them.")


def _topic(words: list[str], topics: tuple[str, ...]) -> list[str]:
  if topics and (not words or words[0] not in topics):
    said = f"{words[0]!r} is no topic" if words else "it needs a topic"
    _fail(f"{said}: say {' or '.join(topics)}.")
  extra = words[1:] if topics else words
  if extra:
    _fail(f"unexpected argument {extra[0]!r}: flags are written --name=value.")
  return words


def _keep_compilations() -> None:
  # A second run of the same step starts at once.
  jax.config.update(
    "jax_compilation_cache_dir", str(assets.cache_directory() / "compilations")
  )
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def _fail(sentence: str) -> None:
  path = pathlib.Path(sys.argv[0])
  name = path.parent.name if path.stem == "__main__" else path.stem
  print(f"{name}: {sentence}", file=sys.stderr)
  sys.exit(1)
