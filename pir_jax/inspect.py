"""Shows the geometry of a trained person: `python -m pir_jax.inspect`.

The implicit face of stage 2, alone, without the frame it is inpainted into:

  --what=face       the face with an expression, beside the mean expression
  --what=depth      image, depth and normals from one side
  --what=turntable  the same while the camera swings around the head
  --what=mesh       the surface, for any program that shows meshes
"""

import pathlib
import time

import numpy as np
from absl import flags

from pir_jax.inference import mesh as mesh_lib
from pir_jax.inference import viewer as viewer_lib
from pir_jax.media import whole_file
from pir_jax.runtime import app

_MODEL = flags.DEFINE_string(
  "model", None, "Folder with the run triplane, or that run itself."
)
_WHAT = flags.DEFINE_enum(
  "what", "turntable", ["turntable", "depth", "mesh", "face"], "What to show."
)
_OUTPUT = flags.DEFINE_string(
  "output",
  None,
  "File to write: .mp4 or .png (turntable), .png or .npz (depth), .ply or .glb "
  "(mesh), .png (face).",
)
_EXPRESSION = flags.DEFINE_string(
  "expression", "", "As in jawOpen=0.8,mouthSmileLeft=0.5; the rest is mean."
)
_PERSON = flags.DEFINE_integer("person", 0, "Which one the run was trained on.")
_DATA = flags.DEFINE_string(
  "data", "", "Prepared clip, to look through its mean camera."
)
_DEGREES = flags.DEFINE_float(
  "degrees", 30, "A turntable's swing to either side; 360 is one whole turn."
)
_TURN = flags.DEFINE_float(
  "turn", None, "Degrees to the head's left; else in front, or the clip's."
)
_NOD = flags.DEFINE_float(
  "nod", None, "Degrees above the head; else level, or the clip's."
)
_GRID = flags.DEFINE_integer(
  "grid", 128, "Cells along the mesh's box.", lower_bound=8, upper_bound=1024
)
_LEVEL = flags.DEFINE_float(
  "level",
  0,
  "Density of the mesh's surface, per head unit; 0 is where half of the light "
  "is absorbed over an eighth of the box.",
  lower_bound=0,
)
_SHOWN = 7  # Pictures of a turntable in a row.


def _viewpoint(box: float) -> viewer_lib.Viewpoint:
  view = (
    viewer_lib.of_clip(_DATA.value) if _DATA.value else viewer_lib.in_front(box)
  )
  if _TURN.value is not None:
    view = view._replace(turn=_TURN.value)
  if _NOD.value is not None:
    view = view._replace(nod=_NOD.value)
  return view


def _turntable(viewer, view, expression, output) -> str:
  film = output.suffix.lower() == ".mp4"
  num = viewer_lib.SECONDS * viewer_lib.FRAME_RATE if film else _SHOWN
  turns = viewer_lib.swing(_DEGREES.value, num, there_and_back=film)
  seen = viewer.render(expression, viewer_lib.around(view, turns))
  if film:
    viewer_lib.save_film(output, seen)
  else:
    viewer_lib.save_sheet(output, viewer_lib.to_pictures(seen))
  return f"{num} pictures"


def _depth(viewer, view, expression, output) -> str:
  seen = viewer.render(expression, viewer_lib.around(view, np.zeros(1)))
  if output.suffix.lower() == ".npz":
    viewer_lib.save_arrays(output, seen)
  else:
    viewer_lib.save_sheet(output, viewer_lib.to_pictures(seen))
  return f"{viewer_lib.share_met(seen):.0%} of the rays meet matter"


def _face(viewer, view, expression, output) -> str:
  cameras = viewer_lib.around(view, np.zeros(1))
  pictures = [
    viewer_lib.to_pictures(viewer.render(raw, cameras))["image"]
    for raw in (viewer.mean, expression)
  ]
  name = f"mean expression | {_EXPRESSION.value or 'the same'}"
  viewer_lib.save_sheet(output, {name: np.concatenate(pictures)})
  return "2 pictures"


def _mesh(viewer, view, expression, output) -> str:
  del view
  field = mesh_lib.Field(viewer.generator, viewer.planes(expression))
  level = _LEVEL.value or mesh_lib.default_level(field.box)
  mesh = mesh_lib.extract(field, _GRID.value, level)
  with whole_file.written(output) as hidden:
    mesh_lib.save(mesh, hidden)
  return (
    f"{len(mesh.vertices)} vertices, {len(mesh.faces)} faces, "
    f"level {level:.3g} of at most {mesh.highest:.3g}"
  )


_SHOWS = {
  "turntable": (_turntable, (".mp4", ".png")),
  "depth": (_depth, (".png", ".npz")),
  "mesh": (_mesh, mesh_lib.SUFFIXES),
  "face": (_face, (".png",)),
}


def main() -> None:
  """Runs the command."""
  model, output = app.required(_MODEL, _OUTPUT)
  output = pathlib.Path(output)
  show, suffixes = _SHOWS[_WHAT.value]
  whole_file.check_name(output, suffixes)
  whole_file.check_folder(output.parent)
  started = time.monotonic()
  viewer = viewer_lib.Viewer.open(model, _PERSON.value)
  expression, notes = viewer_lib.parse_expression(
    _EXPRESSION.value, viewer.space.expression_names, viewer.mean
  )
  for note in notes:
    print(note)
  box = viewer.generator.config.renderer.box_warp
  view = _viewpoint(box)
  output.parent.mkdir(parents=True, exist_ok=True)
  summary = show(viewer, view, expression, output)
  print(f"{output}: {summary}, {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
  app.run(main, continues=False)
