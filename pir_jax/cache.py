"""Shows the compiled programs that are kept, or deletes them.

`python -m pir_jax.cache`; with --clear they are compiled again when needed.
Downloads and the packaged clip, which lie in the same folder, stay.
"""

from absl import flags

from pir_jax.runtime import app, compilation_cache, memory

_CLEAR = flags.DEFINE_boolean("clear", False, "Delete the compiled programs.")


def main() -> None:
  """Runs the command."""
  count, size = compilation_cache.size()
  if _CLEAR.value:
    compilation_cache.clear()
  done = "deleted" if _CLEAR.value else "kept"
  print(
    f"{count} compiled programs {done}, {memory.readable(size)}: "
    f"{compilation_cache.root()}"
  )


if __name__ == "__main__":
  app.run(main)
