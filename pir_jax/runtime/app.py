"""Starts every command: reads its flags, reports a user's errors in a line."""

import dataclasses
import errno
import pathlib
import pydoc
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

from absl import app, flags, logging

from pir_jax.runtime import compilation_cache, memory, preemption
from pir_jax.types import InputError

# A full disk, or a place that may not be written: no bug of this program.
_DISK_ERRORS = (
  errno.EACCES,
  errno.EDQUOT,
  errno.EIO,
  errno.ENOSPC,
  errno.EPERM,
  errno.EROFS,
)


def run(
  main: Callable[..., None],
  topics: tuple[str, ...] = (),
  *,
  continues: bool = True,
  files: bool = False,
) -> None:
  """Runs `main` under absl; an InputError is one line and exit code 1.

  A preempted run that has saved ends with exit code 0 after SIGTERM, and with
  130 after Ctrl-C; so does any other interrupted command. A bug keeps its
  traceback.

  Args:
    main: the command.
    topics: words of which the user must choose one, without dashes; `main`
      takes it as its argument. Without any, `main` takes nothing.
    continues: whether the same command goes on where it was interrupted.
    files: `main` takes all words, names of files, as its arguments.
  """

  def guarded(argv: list[str]) -> None:
    args = argv[1:] if files else _topic(argv[1:], topics)
    # absl sets the level to INFO, with the news of other libraries.
    logging.set_verbosity(logging.WARNING)
    # Orbax also logs the traceback of what it raises.
    logging.get_absl_logger().addFilter(lambda record: not record.exc_info)
    compilation_cache.keep()
    memory.keep_pages()
    # SIGTERM cleans up as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
      main(*args)
    except InputError as error:
      _fail(str(error))
    except preemption.Preempted as error:
      print(error, file=sys.stderr)
      sys.exit(error.code)
    except KeyboardInterrupt:
      hint = ": the same command continues from what was saved, if anything"
      print(f"stopped{hint if continues else ''}.", file=sys.stderr)
      sys.exit(130)
    except OSError as error:
      if error.errno not in _DISK_ERRORS or not error.filename:
        raise
      _fail(f"{error.strerror}: {error.filename}.")

  app.run(guarded, flags_parser=_parse)


def required(
  *holders: flags.FlagHolder | tuple[flags.FlagHolder, ...],
) -> list[Any]:
  """Returns the values of flags that the user must set.

  Args:
    holders: flags; of a tuple of them one is enough, and the first that is set
      counts.

  Raises:
    InputError: some are missing; names all of them.
  """
  values, missing = [], []
  for either in holders:
    either = either if isinstance(either, tuple) else (either,)
    values.append(next((flag.value for flag in either if flag.value), None))
    if not values[-1]:
      missing.append(" or ".join(f"--{flag.name}" for flag in either))
  if missing:
    raise InputError(f"Missing required flags: {', '.join(missing)}.")
  return values


def _parse(argv: list[str]) -> list[str]:
  try:
    return flags.FLAGS(argv)
  except SystemExit:  # absl's --help and its kind end with 1.
    sys.exit(0)
  except flags.Error as error:
    # ml_collections puts a whole traceback in the message of one flag.
    lines = [line for line in str(error).splitlines() if line.strip()]
    sentence = re.sub(r"^[\w.]+Error: ", "", lines[-1]).rstrip(".")
    sentence = re.sub(
      r"^flag (--\w+=.*): (?:invalid literal for int|could not convert).*",
      r"\1 is not a number",
      sentence,
    )
    sentence = re.sub(r"\. Did you mean: (.*) \?", _hint, sentence)
    # What the experiment's file says of itself needs no list of flags.
    about_flags = "flag" in sentence or sentence.startswith("--")
    _fail(sentence + ("; --help lists the flags." if about_flags else "."))
  except SyntaxError as error:  # --config names a file of something else.
    _fail(f"{error.filename} is not Python ({error.msg}): name an experiment.")
  except TypeError as error:  # ml_collections: --config.stage=3.
    if "ambiguous type" not in str(error):
      raise
    _fail("a whole Config cannot be set: set its fields, --config.a.field=.")
  except KeyError as error:  # ml_collections: an unknown --config.field.
    _fail(_unknown_field(str(error.args[0])))


def _hint(match: re.Match) -> str:
  """Keeps absl's guess of a flag, unless it is one of absl's own."""
  guess = match[1].split(",")[0].strip()
  owner = flags.FLAGS.find_module_defining_flag(guess) or "absl"
  return "" if owner.startswith("absl") else f": did you mean --{guess}?"


def _unknown_field(message: str) -> str:
  """Names the fields that a config does have, in place of its class."""
  match = re.search(r"<class '([\w.]+)'>", message)
  kind = match and pydoc.locate(match[1])
  if not (kind and dataclasses.is_dataclass(kind)):
    return f"{message}; the Config dataclasses name them."
  (field,) = re.findall(r"[Ff]ield (\w+)", message)[:1] or ["?"]
  names = ", ".join(each.name for each in dataclasses.fields(kind))
  return f"the config has no field {field} there: it has {names}."


def _topic(words: list[str], topics: tuple[str, ...]) -> list[str]:
  if topics and (not words or words[0] not in topics):
    problem = f"{words[0]!r} is not a topic" if words else "no topic is named"
    _fail(f"{problem}: choose {' or '.join(topics)}.")
  extra = words[1:] if topics else words
  if extra:
    _fail(f"unexpected argument {extra[0]!r}: flags are written --name=value.")
  return words


def _fail(sentence: str) -> None:
  path = pathlib.Path(sys.argv[0])
  name = path.parent.name if path.stem == "__main__" else path.stem
  print(f"{name}: {sentence}", file=sys.stderr)
  sys.exit(1)
