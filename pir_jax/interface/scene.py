"""viser's server, its first view, and the training cameras in it.

c cameras.
"""

import contextlib
import errno
import io
import math
import socket
from types import ModuleType
from typing import Any

import numpy as np

from pir_jax.inference import viewer as viewer_lib
from pir_jax.interface import framing
from pir_jax.types import Cameras, InputError

_FILLS = 0.85  # Share of a canvas's height that the window fills at first.
_FRUSTUM = 0.12  # Size of a training camera, head units.
_PANEL = 340  # Width of the panel, CSS pixels: sliders of names in full.


def check(host: str, port: int) -> None:
  """Checks that a server can be started.

  Raises:
    InputError: viser is not installed, or the port is in use.
  """
  _import_viser()
  # viser would try in vain, or take another port.
  try:
    family, kind, protocol, _, address = socket.getaddrinfo(
      host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as trial:
      trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      trial.bind(address)
      trial.listen()
  except OSError as error:
    reason = str(error.strerror or error)
    if error.errno == errno.EADDRINUSE:
      reason = "it is in use"
    raise InputError(_refusal(host, port, reason)) from error


def _refusal(host: str, port: int, reason: str) -> str:
  return (
    f"port {port} of {host} cannot be listened at ({reason}): choose another "
    "port, 0 for any, or another host."
  )


def start(host: str, port: int, view: viewer_lib.Viewpoint) -> Any:
  """Starts a server of viser's, without its own greetings.

  Args:
    host: address to listen at.
    port: to listen at; 0 is any free one.
    view: where browsers begin.

  Raises:
    InputError: viser is not installed, or the port is in use.
  """
  check(host, port)
  viser = _import_viser()

  class Server(viser.ViserServer):
    """One that no browser can ask to be put on the internet."""

    def request_share_url(self, verbose: bool = True) -> None:
      """Shares nothing."""

  with contextlib.redirect_stdout(io.StringIO()):
    server = Server(host=host, port=port, label="pir_jax", verbose=False)
  if port and server.get_port() != port:  # Taken since the check.
    stop(server)
    raise InputError(_refusal(host, port, "it is in use"))
  server.gui.configure_theme(dark_mode=True, show_share_button=False)
  server.gui.main_panel.dock_right()
  server.gui.main_panel.set_width(_PANEL)
  server.scene.set_up_direction("+y")
  pose = camera_of(view).pose
  left, top, right, bottom = framing.window_of(view)
  middle = np.array([(left + right) / 2, (top + bottom) / 2, 0.0])
  server.initial_camera.position = pose[:3, 3]
  server.initial_camera.look_at = pose[:3, :3] @ middle
  server.initial_camera.fov = 2 * math.atan(
    (bottom - top) / 2 / view.distance / _FILLS
  )
  return server


def stop(server: Any) -> None:
  """Ends a server and its thread."""
  with contextlib.redirect_stdout(io.StringIO()):
    server.stop()


def camera_of(view: viewer_lib.Viewpoint) -> Cameras:
  """The camera of a viewpoint, without a batch axis."""
  return Cameras(*(x[0] for x in viewer_lib.around(view, np.zeros(1))))


def eye_of(client: Any) -> framing.Eye | None:
  """The camera of a browser; None for one that no browser has."""
  camera = client.camera
  pose = np.eye(4)
  pose[:3, :3] = _rotation(camera.wxyz)
  pose[:3, 3] = camera.position
  eye = framing.Eye(
    pose, float(camera.fov), int(camera.image_width), int(camera.image_height)
  )
  return eye if framing.is_sane(eye) else None


def add_frusta(server: Any, cameras: Cameras) -> list[Any]:
  """Adds cameras [c, ...] to the scene, hidden; a click looks through one."""
  rotations = _import_viser().transforms.SO3
  frusta = []
  for pose, k in zip(*cameras, strict=True):
    frustum = server.scene.add_camera_frustum(
      f"/cameras/{len(frusta)}",
      2 * math.atan(0.5 / float(k[1, 1])),
      float(k[1, 1] / k[0, 0]),
      scale=_FRUSTUM,
      thickness=1.5,
      thickness_units="screen",
      color=(90, 160, 255),
      wxyz=rotations.from_matrix(np.asarray(pose[:3, :3], float)).wxyz,
      position=pose[:3, 3],
      visible=False,
    )
    frustum.on_click(_look_through)
    frusta.append(frustum)
  return frusta


async def _look_through(event: Any) -> None:
  camera, frustum = event.client.camera, event.target
  ahead = _rotation(frustum.wxyz)[:, 2]
  place = np.asarray(frustum.position, float)
  camera.position = place
  # The head stays what the camera is turned about.
  camera.look_at = place + ahead * max(0.5, float(-place @ ahead))
  camera.fov = frustum.fov


def _rotation(wxyz) -> np.ndarray:
  transforms = _import_viser().transforms
  return transforms.SO3(np.asarray(wxyz, float)).as_matrix()


def _import_viser() -> ModuleType:
  try:
    import viser
    import viser.transforms
  except ImportError as error:
    raise InputError(
      "the viewer needs viser: pip install 'pir_jax[app]'."
    ) from error
  return viser
