"""Reads lists that people write, in whatever encoding their editor chose."""

import codecs
import pathlib

from pir_jax.types import InputError

# PowerShell and old editors of Windows; the longer mark is looked for first.
_MARKS = {
  codecs.BOM_UTF8: "utf-8-sig",
  codecs.BOM_UTF32_LE: "utf-32",
  codecs.BOM_UTF32_BE: "utf-32",
  codecs.BOM_UTF16_LE: "utf-16",
  codecs.BOM_UTF16_BE: "utf-16",
}


def read_lines(path: str | pathlib.Path) -> list[str]:
  """Reads a text of UTF-8, UTF-16, UTF-32 or Windows-1252, line by line.

  Raises:
    InputError: it cannot be read, or a line is of no such text.
  """
  path = pathlib.Path(path)
  try:
    data = path.read_bytes()
  except OSError as error:
    raise InputError(
      f"{path} cannot be read ({error.strerror}): check the name."
    ) from error
  kinds = [kind for mark, kind in _MARKS.items() if data.startswith(mark)]
  without_mark = {"utf-16-be": data[:4:2], "utf-16-le": data[1:4:2]}
  kinds += [kind for kind, half in without_mark.items() if half == b"\0\0"]
  for kind in kinds or ("utf-8", "cp1252"):
    try:
      text = data.decode(kind)
    except UnicodeDecodeError as error:
      fault = data[: error.start].count(b"\n") + 1
    else:
      if "\0" not in text:
        return text.splitlines()
      fault = text[: text.index("\0")].count("\n") + 1
  raise InputError(f"{path}, line {fault}, is no text: save the list as UTF-8.")
