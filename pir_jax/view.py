"""Shows a person's implicit face live in a browser: `python -m pir_jax.view`.

Turn the head, move named expressions, look at image, depth, normals or mesh,
and play speech with the expressions that are predicted for it. Ctrl-C ends it.
"""

import pathlib

from absl import flags

from pir_jax.data.dataset import Clip
from pir_jax.inference import viewer as viewer_lib
from pir_jax.interface import face_view, opening, scene, viewer_server
from pir_jax.runtime import app

_MODEL = flags.DEFINE_string(
  "model", None, "Folder with the run triplane, or that run itself."
)
_AUDIO = flags.DEFINE_string(
  "audio", "", "Speech to play; also needs the run expression in the folder."
)
_DATA = flags.DEFINE_string(
  "data", "", "Prepared clip whose cameras are shown; by default the run's own."
)
_PERSON = flags.DEFINE_integer("person", 0, "Which one the run was trained on.")
_HOST = flags.DEFINE_string(
  "host", "127.0.0.1", "Address to listen at; 0.0.0.0 lets the network in."
)
_PORT = flags.DEFINE_integer(
  "port", 8080, "Port to listen at; 0 is any free one.", 0, 65535
)


def view(
  model: str | pathlib.Path,
  *,
  audio: str = "",
  data: str = "",
  person: int = 0,
  host: str = "127.0.0.1",
  port: int = 8080,
) -> viewer_server.ViewerServer:
  """Opens a person in a server, which shows them once `run` is called.

  Args:
    model: folder with the run triplane, or that run itself.
    audio: speech file to play; "" for none.
    data: prepared clip whose cameras are shown; by default the run's own.
    person: which one the run was trained on.
    host: address to listen at.
    port: to listen at; 0 is any free one.

  Raises:
    InputError: a file or run cannot be used, viser is missing, or the port is
      in use.
  """
  model = pathlib.Path(model)
  scene.check(host, port)  # Before minutes of opening.
  face = face_view.FaceView.open(model, person)
  clip = Clip.open(data) if data else opening.clip_of(model, person)
  first = viewer_lib.in_front(face.box)
  if clip is not None:
    first = viewer_lib.of_clip(clip.path)
  timeline = None
  if audio:
    timeline = opening.timeline_of(model, audio, face.space, person)
  server = viewer_server.ViewerServer(
    face,
    first,
    host=host,
    port=port,
    timeline=timeline,
    title=pathlib.Path(audio).name,
    cameras=None if clip is None else opening.cameras_of(clip),
  )
  try:
    server.warm_up(first)
  except BaseException:  # Ctrl-C above all.
    server.close()
    raise
  return server


def main() -> None:
  """Runs the command."""
  (model,) = app.required(_MODEL)
  server = view(
    model,
    audio=_AUDIO.value,
    data=_DATA.value,
    person=_PERSON.value,
    host=_HOST.value,
    port=_PORT.value,
  )
  with server:
    print(f"the viewer is at {server.url}; Ctrl-C ends it.", flush=True)
    try:
      server.run()
    except KeyboardInterrupt:
      print("the viewer has ended.")


if __name__ == "__main__":
  app.run(main)
