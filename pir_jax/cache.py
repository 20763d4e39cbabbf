"""Shows what is kept to be quick the next time, or deletes it.

`python -m pir_jax.cache`: compiled programs, and where a face was in videos
that were prepared or reenacted. With --clear both are made again when needed.
Downloads and the packaged clip, which lie in the same folder, stay.
"""

from absl import flags

from pir_jax.preparation import seen
from pir_jax.runtime import app, compilation_cache, memory

_CLEAR = flags.DEFINE_boolean("clear", False, "Delete both.")


def main() -> None:
  """Runs the command."""
  done = "deleted" if _CLEAR.value else "kept"
  kinds = (("compiled programs", compilation_cache), ("known videos", seen))
  for name, kind in kinds:
    count, size = kind.size()
    if _CLEAR.value:
      kind.clear()
    print(f"{count} {name} {done}, {memory.readable(size)}: {kind.root()}")


if __name__ == "__main__":
  app.run(main)
