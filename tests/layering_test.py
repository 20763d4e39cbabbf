"""Imports go one way, and files stay small enough to read."""

import ast
import pathlib

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "pir_jax"
ROOMS = {
  "ops": set(),
  "geometry": set(),
  "models": {"geometry", "ops"},
  "losses": {"ops"},
  "face": {"geometry", "ops", "assets"},
  "data": set(),
  "convert": {"face", "models"},
  "metrics": {"models"},
  "runtime": {"assets"},
  "stages": {"models", "losses", "geometry", "ops", "runtime"},
}
# Rooms that must work without these libraries.
BARRED = {
  "ops": {"flax", "optax", "orbax", "grain"},
  "geometry": {"flax", "optax", "orbax", "grain"},
  "data": {"jax.numpy", "flax"},
}
# Everywhere: no torch, and pickle only behind the restricted reader.
NOWHERE = {"torch", "tensorflow"}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: pathlib.Path) -> set[str]:
  """Every module that a file imports, by its full name."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: imports are absolute"
      names |= {f"{node.module}.{alias.name}" for alias in node.names}
  return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.name))
def test_imports_go_one_way(path):
  room = path.relative_to(PACKAGE).parts[0]
  found = imports(path)
  outside = {name for name in found if name.split(".")[0] in NOWHERE}
  for barred in BARRED.get(room, ()):
    outside |= {n for n in found if n == barred or n.startswith(barred + ".")}
  assert not outside, f"{path.name} may not import {outside}"
  ours = {n.split(".")[1] for n in found if n.startswith("pir_jax.")}
  if room in ROOMS and path.name != "__main__.py":
    assert ours <= ROOMS[room] | {room, "types"}, path


def test_stages_do_not_import_each_other():
  stages = {"expression", "triplane", "inpainting"}
  for path in (PACKAGE / "stages").glob("*.py"):
    names = imports(path)
    others = {n.split(".")[2] for n in names if n.startswith("pir_jax.stages.")}
    assert not others & stages, path


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.name))
def test_files_stay_readable(path):
  num_lines = len(path.read_text().splitlines())
  is_main = "command.run(" in path.read_text()
  limit = 150 if is_main else 400
  assert num_lines <= limit, f"{path.name} has {num_lines} lines"


def test_no_shell_and_no_pickle():
  for path in FILES:
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Call):
        text = ast.unparse(node.func)
        assert text not in ("os.system", "pickle.load", "pickle.loads"), path
        keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
        assert keywords.get("shell", "False") == "False", path
        assert keywords.get("allow_pickle", "False") == "False", path
