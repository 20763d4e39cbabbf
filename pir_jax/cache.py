"""Shows what is kept to be quick the next time, or deletes it.

`python -m pir_jax.cache`: compiled programs, where a face was in videos that
were prepared or reenacted, and people's networks as programs. With --clear all
of it is made again when it is needed.
Downloads and the packaged clip, which lie in the same folder, stay.
"""

from absl import flags

from pir_jax.inference import ready
from pir_jax.preparation import seen
from pir_jax.runtime import app, compilation_cache, memory

_CLEAR = flags.DEFINE_boolean("clear", False, "Delete it.")


def main() -> None:
  """Runs the command."""
  done = "deleted" if _CLEAR.value else "kept"
  kinds = (("compiled programs", compilation_cache), ("known videos", seen))
  kinds += (("people ready to start", ready),)
  for name, kind in kinds:
    if kind.root() is None:  # Nothing of this kind is to be kept.
      continue
    count, size = kind.size()
    if _CLEAR.value:
      kind.clear()
    print(f"{count} {name} {done}, {memory.readable(size)}: {kind.root()}")


if __name__ == "__main__":
  app.run(main)
