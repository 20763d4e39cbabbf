"""The package speaks the field's words: in names, docstrings and messages."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
FILES = sorted((ROOT / "pir_jax").rglob("*.py")) + sorted(
  (ROOT / "experiments").glob("*.py")
)
# What a reader of the field would not look for, and what he would.
INSTEAD = {
  "paint painted painting paints painter painters": "inpaint, generator",
  "judge judged judges critic critics": "discriminator",
  "game games": "GAN",
  "portray portrays portrayed portrait": "render",
  "draw draws drawn drawing": "render, plot, sample",
  "heard hearing hears hear": "predicted (audio-driven) expression",
  "spoken says": "speech, predicted",
  "told tells": "metrics, reports",
  "found": "the thing's own name; detected, missing",
  "given": "args, inputs, the thing's own name",
  "numbers": "params, values",
  "settle settles settled": "config, resolve",
  "deviation": "std",
  "likeness": "shape, reconstruction",
  "reach reaches": "context_frames, radius",
  "tap taps": "layer, layer_index",
  "truth": "target, ground truth",
  "pace": "throughput",
  "seal sealed shelf": "checkpoint integrity",
  "soundness": "finite checks",
  "blueprint": "abstract stage",
}
WORDS = {word: new for old, new in INSTEAD.items() for word in old.split()}
# Names that others gave.
THEIRS = {
  *("dimension_numbers", "ImageDraw", "Draw"),
  *("FileNotFoundError", "PackageNotFoundError", "ManifestNotFound"),
}
# The field's own phrases, and a loose one.
PHRASES = r"ground[- _]truth|standard deviations?"
LOOSE = r"what is seen"


def words_of(text: str) -> list[str]:
  """Returns the words of a name or a sentence that the list holds."""
  text = re.sub(PHRASES, " ", text.lower())
  found = [word for word in re.split(r"[^a-z]+", text) if word in WORDS]
  return found + re.findall(LOOSE, text)


def parts_of(name: str) -> str:
  """Returns a name's parts: `PatchJudge_loss` -> `Patch Judge loss`."""
  return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ")


def texts(path: pathlib.Path) -> list[tuple[int, str]]:
  """Returns each name and each sentence of a file, with its line."""
  found = []
  for node in ast.walk(ast.parse(path.read_text())):
    line = getattr(node, "lineno", 0)
    names = [
      getattr(node, field, None)
      for field in ("id", "attr", "arg", "name", "asname")
    ]
    for name in names:
      if isinstance(name, str) and name not in THEIRS:
        found.append((line, parts_of(name)))
    if (
      isinstance(node, ast.Constant)
      and isinstance(node.value, str)
      and node.value not in THEIRS
    ):
      found.append((line, node.value.replace("_", " ")))
  return found


def violations(path: pathlib.Path) -> list[str]:
  """Returns one line for every loose word of a file."""
  return [
    f"{path.relative_to(ROOT)}:{line}: {word!r}, not {WORDS.get(word)}"
    for line, text in texts(path)
    for word in words_of(text)
  ]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_uses_the_field_s_words(path):
  loose = violations(path)
  assert not loose, "\n" + "\n".join(loose)


def test_no_parameter_is_a_bare_rate():
  # Of frames, samples, learning or dropout: a reader must know which.
  for path in FILES:
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.arg):
        assert node.arg != "rate", f"{path}:{node.lineno}"


def test_the_list_is_looked_for():
  assert words_of(parts_of("PatchJudge_heard")) == ["judge", "heard"]
  assert words_of("the ground truth, and the truth") == ["truth"]
  assert words_of("a step of what is seen") == ["what is seen"]
