"""The command shows a network, and refuses in a sentence."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]

# A child, because mains define flags of the same names. In it a small random
# network stands for a trained run, and one start serves many calls.
CHILD = """
import contextlib, io, sys
import numpy as np
from absl import flags
from flax import nnx
from pir_jax import inspect
from pir_jax.inference import viewer as viewer_lib
from pir_jax.models import renderer, triplane_generator
from pir_jax.runtime import checkpoint
from pir_jax.types import FaceSpace, InputError

network = triplane_generator.TriPlaneGenerator(
  triplane_generator.Config(
    identity_size=3, expression_size=2, map_depth=1, w_size=8, channel_base=32,
    channel_max=4, plane_resolution=8, plane_channels=4, feature_resolution=8,
    resolution=32, sr_channels=(4, 4), noise=False,
    renderer=renderer.Config(num_coarse=6, num_fine=0),
  ),
  rngs=nnx.Rngs(0),
)
space = FaceSpace(
  3, ("jawOpen", "mouthPucker"), np.zeros(2, "f4"), np.ones(2, "f4")
)
viewer = viewer_lib.Viewer(
  network, space, np.zeros(3, "f4"), space.expression_mean, batch_size=7
)
viewer_lib.Viewer.open = lambda model, person: viewer
for line in sys.stdin:
  flags.FLAGS.unparse_flags()
  for flag in flags.FLAGS.flags_by_module_dict()["pir_jax.inspect"]:
    flag.unparse()
  flags.FLAGS(["inspect", "--model=somewhere", *line.split()])
  try:
    inspect.main()
  except InputError as error:
    print("refused:", error)
"""
CALLS = [
  "--what=depth --output={}/new/depth.png --turn=20 --nod=-10",
  "--what=depth --output={}/depth.npz",
  "--what=turntable --output={}/turntable.png --degrees=360",
  "--what=turntable --output={}/turntable.mp4 --degrees=10",
  "--what=face --output={}/face.png --expression=jawOpen=0.8,mouthPucker=3",
  "--what=mesh --output={}/mesh.ply --grid=8 --level=0.5",
  "--what=mesh --output={}/mesh.glb --grid=8 --level=1e9",
  "--what=mesh --output={}/mesh.png",
  "--what=face --output={}/other.png --expression=jawDrop=1",
]
WRITTEN = [
  "depth.npz",
  "face.png",
  "mesh.ply",
  "new/depth.png",
  "turntable.mp4",
  "turntable.png",
]


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
  folder = tmp_path_factory.mktemp("shown")
  result = subprocess.run(
    [sys.executable, "-c", CHILD],
    cwd=ROOT,
    input="\n".join(CALLS).format(*[folder] * len(CALLS)),
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  return folder, result.stdout.splitlines()


def test_every_kind_is_written_and_told(shown):
  folder, lines = shown
  files = [p.relative_to(folder) for p in folder.rglob("*") if p.is_file()]
  assert sorted(map(str, files)) == WRITTEN
  told = [line for line in lines if line.endswith(" s")]
  assert sorted(line.split(":")[0] for line in told) == [
    f"{folder}/{name}" for name in WRITTEN
  ]
  (mesh,) = (line for line in told if "mesh.ply" in line)
  assert "vertices" in mesh and "faces" in mesh
  with np.load(folder / "depth.npz") as arrays:
    assert arrays["image"].shape == (32, 32, 3)
  with Image.open(folder / "face.png") as picture:
    assert picture.width == 2 * 256


def test_refusals_and_notes(shown):
  _, lines = shown
  refused = [line for line in lines if line.startswith("refused")]
  assert len(refused) == 3
  assert "--level=" in refused[0]
  assert ".ply or .glb" in refused[1]
  assert "jawOpen" in refused[2]
  assert any(line.startswith("mouthPucker=3 ") for line in lines)


def test_command_without_its_flags_or_model(run_command, tmp_path):
  output = tmp_path / "new" / "a.png"
  code, _, errors = run_command(
    "inspect", f"--model={tmp_path}", f"--output={output}"
  )
  assert code == 1
  assert len(errors) == 1 and "training run" in errors[0]
  assert not output.parent.exists()
