"""Imports go one way, rooms hold what they may, files stay small enough."""

import ast
import builtins
import dis
import pathlib
import types

import pytest

PACKAGE = pathlib.Path(__file__).parents[1] / "pir_jax"
# What stands at the root of the package; everything else has a room.
COMMANDS = {
  *("prepare", "train", "reenact", "evaluate", "inspect", "export", "view"),
  *("convert", "benchmark", "compile", "demo", "cache", "verify", "app"),
}
ROOT = COMMANDS | {"__init__", "__main__", "types", "ranges", "assets"}
OPEN = {"types", "ranges"}  # To all.
# Each room, and the rooms that it may import.
ROOMS = {
  "assets": "",
  "ops": "",
  "geometry": "",
  "media": "",
  "marks": "media",
  "models": "ops geometry",
  "losses": "ops",
  "metrics": "models ops",
  "face": "ops geometry assets",
  "data": "media metrics",
  "runtime": "assets",
  "pretrained": "models face",
  "stages": "models losses geometry ops runtime metrics",
  "runs": "stages pretrained models data face media runtime assets",
  "preparation": "face media data metrics runtime assets",
  "inference": "runs stages preparation face marks media data geometry runtime "
  "assets",
  "evaluation": "inference runs stages preparation face media data geometry "
  "metrics runtime assets",
  "interface": "inference runs stages preparation face media data geometry "
  "runtime assets",
  "profiling": "inference runs stages preparation pretrained face media data "
  "models losses geometry ops metrics runtime assets",
}
ALLOWED = {
  "types": set(),
  "ranges": {"types"},
  **{room: {*OPEN, *text.split()} for room, text in ROOMS.items()},
}
ALLOWED |= {name: {*OPEN, *ROOMS} for name in COMMANDS}
# The public names, looked up when asked for, and the list of commands.
ALLOWED |= {name: {*OPEN, *ROOMS, *COMMANDS} for name in ROOT - set(ALLOWED)}
# Rooms that must work without these libraries.
BARRED = {
  "ops": {"flax", "optax", "orbax", "grain"},
  "geometry": {"flax", "optax", "orbax", "grain"},
  "data": {"jax.numpy", "flax"},
  "media": {"jax.numpy", "flax"},
}
# Everywhere: no torch, and pickle only behind the restricted reader.
NOWHERE = {"torch", "tensorflow"}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: pathlib.Path) -> set[str]:
  """Returns every module that a file imports, by its full name."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: imports are absolute"
      names |= {f"{node.module}.{alias.name}" for alias in node.names}
  return names


def test_the_root_holds_the_commands_and_the_rooms():
  files = {p.stem for p in PACKAGE.glob("*.py")}
  assert files <= ROOT, files - ROOT
  folders = {p.parent.relative_to(PACKAGE).parts for p in FILES}
  rooms = {parts[0] for parts in folders if parts}
  assert rooms == set(ROOMS) - {"assets"}


def test_no_room_imports_one_above_it():
  # Taken away one by one, rooms that import nothing else, all must go.
  left = {room: ALLOWED[room] - OPEN for room in ROOMS}
  while left:
    lowest = {room for room, below in left.items() if not below & set(left)}
    assert lowest, f"a circle among {set(left)}"
    left = {room: below for room, below in left.items() if room not in lowest}


@pytest.mark.parametrize(
  "path", FILES, ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_imports_go_one_way(path):
  parts = path.relative_to(PACKAGE).with_suffix("").parts
  room = parts[0]
  found = imports(path)
  outside = {name for name in found if name.split(".")[0] in NOWHERE}
  for barred in BARRED.get(room, ()):
    outside |= {n for n in found if n == barred or n.startswith(barred + ".")}
  assert not outside, f"{path.name} may not import {outside}"
  ours = {n.split(".")[1] for n in found if n.startswith("pir_jax.")}
  assert ours <= ALLOWED[room] | {room}, path


def test_files_of_a_room_import_each_other_one_way():
  left = {}
  for path in FILES:
    name = ".".join(("pir_jax", *path.relative_to(PACKAGE).parts))[:-3]
    found = imports(path)
    # `from pir_jax.room import file` and `from pir_jax.room.file import Name`.
    left[name] = found | {n.rpartition(".")[0] for n in found}
  while left:
    lowest = {name for name, below in left.items() if not below & set(left)}
    assert lowest, f"a circle among {sorted(left)}"
    left = {name: below for name, below in left.items() if name not in lowest}


def test_stages_do_not_import_each_other():
  stages = {"expression", "triplane", "inpainting"}
  for path in (PACKAGE / "stages").glob("*.py"):
    names = imports(path)
    others = {n.split(".")[2] for n in names if n.startswith("pir_jax.stages.")}
    assert not others & stages, path


@pytest.mark.parametrize(
  "path", FILES, ids=lambda p: str(p.relative_to(PACKAGE))
)
def test_files_stay_readable(path):
  num_lines = len(path.read_text().splitlines())
  is_command = path.parent == PACKAGE and path.stem in COMMANDS
  limit = 150 if is_command else 400
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


def _globals(code: types.CodeType) -> set[str]:
  """Returns the globals that functions ask for."""
  names = {
    step.argval
    for step in dis.get_instructions(code)
    if step.opname == "LOAD_GLOBAL"
  }
  for inner in code.co_consts:
    if isinstance(inner, types.CodeType):
      names |= _globals(inner)
  return names


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_global_name_is_defined(path):
  # Ruff's own check takes the shapes of jaxtyping for names.
  module = compile(path.read_text(), str(path), "exec", dont_inherit=True)
  stored = {
    step.argval
    for step in dis.get_instructions(module)
    if step.opname.startswith("STORE")
  }
  assert _globals(module) <= stored | set(dir(builtins)) | {"__file__"}
