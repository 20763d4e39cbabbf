"""Reports which marks a video bears: `python -m pir_jax.verify FILE ...`.

A signed manifest (C2PA): valid or not, by whom, from which source. A watermark
in the inpainted pixels, which survives re-encoding. The comment in the
metadata, and the run card beside the file. Missing marks prove nothing. The
exit code is 0 when all files could be examined, whatever they bear.
"""

from absl import flags

from pir_jax.marks import examination
from pir_jax.runtime import app
from pir_jax.types import InputError

_JSON = flags.DEFINE_boolean("json", False, "Print JSON, an object a file.")


def main(*files: str) -> None:
  """Runs the command."""
  if not files:
    raise InputError("no file is named: pir-jax verify FILE ...")
  failed = []
  for file in files:
    try:
      marks = examination.examine(file)
    except InputError as error:
      failed.append(str(error))
      continue
    print(marks.json() if _JSON.value else marks.text(), flush=True)
  if failed:  # All of them, after what could be examined.
    raise InputError("\n".join(failed))


if __name__ == "__main__":
  app.run(main, files=True)
