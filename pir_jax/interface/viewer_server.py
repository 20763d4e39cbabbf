"""A server that shows an implicit face live in browsers, by viser.

Everybody has a camera of their own; expressions and what is shown are shared.
viser's thread only notes what changes. Whoever owns the server renders, by
`run` or, between other work, by `render_all`.

h and w height and width of a canvas, c cameras.
"""

import math
import threading
import time
from typing import Any

import numpy as np
from jaxtyping import UInt8

from pir_jax.inference import viewer as viewer_lib
from pir_jax.interface import framing, scene
from pir_jax.interface.controls import Controls
from pir_jax.interface.face_view import FaceView, Rung
from pir_jax.interface.timeline import Timeline
from pir_jax.types import FRAME_RATE, Cameras, InputError

_BUDGET = 0.1  # Seconds that a picture may take while something moves,
_WORTH = 1.5  # or so many times what the coarsest takes.
_FADES = 0.97  # By which a time is forgotten with each coarser picture.
_PERIOD = 1 / FRAME_RATE  # Seconds between two pictures, at least.
_CLAY = (196, 186, 176)  # Of a mesh.
_STILL = 0.3  # Seconds without a change after which pictures get finer.


class _Progress:
  """How fine a picture or a mesh is by now.

  Attributes:
    wanted: everything that it depends on.
    rung: the finest that was made of it, by its index; -1 for none.
    changed_at: when something else was wanted last.
  """

  def __init__(self):
    self.wanted: Any = None
    self.rung = -1
    self.changed_at = -math.inf

  def want(self, wanted: Any, now: float) -> None:
    """Notes what is wanted now."""
    if wanted != self.wanted:
      self.wanted, self.rung, self.changed_at = wanted, -1, now


class _Browser:
  """A connected browser, and what it was shown."""

  def __init__(self, client: Any):
    self.client, self.progress = client, _Progress()


class ViewerServer:
  """Shows one face to any number of browsers, until it is closed.

  Attributes:
    url: where browsers open it.
    controls: that all browsers share.
    num_pictures: pictures sent so far, to all browsers together.
  """

  def __init__(
    self,
    face: FaceView,
    view: viewer_lib.Viewpoint,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    timeline: Timeline | None = None,
    title: str = "",
    cameras: Cameras | None = None,
  ):
    """Starts to serve.

    Args:
      face: to show.
      view: where browsers begin, and whose window the networks know.
      host: address to listen at; 0.0.0.0 lets the whole network in.
      port: to listen at; 0 is any free one.
      timeline: of a speech file.
      title: of that file.
      cameras: of training frames, few enough to be shown.

    Raises:
      InputError: viser is not installed, or the port is in use.
    """
    self.num_pictures = 0
    self._face, self._window = face, framing.window_of(view)
    self._browsers: dict[int, _Browser] = {}
    self._mesh, self._mesh_node = _Progress(), None
    self._seconds: dict[tuple[str, Rung], float] = {}
    self._kind, self._note, self._stopped = "", "", False
    self._reported_at = -math.inf
    self._changed = threading.Condition()
    self._server = scene.start(host, port, view)
    try:
      self._frusta = (
        [] if cameras is None else scene.add_frusta(self._server, cameras)
      )
      self.controls = Controls(
        self._server,
        face.space,
        face.mean,
        self._wake,
        timeline=timeline,
        title=title,
        frusta=bool(self._frusta),
      )
      self._server.on_client_connect(self._connected)
      self._server.on_client_disconnect(self._disconnected)
    except BaseException:
      self.close()
      raise
    name = "localhost" if host in ("0.0.0.0", "::") else host
    self.url = f"http://{name}:{self._server.get_port()}"

  def __enter__(self) -> "ViewerServer":
    return self

  def __exit__(self, *unused_error) -> None:
    self.close()

  def close(self) -> None:
    """Ends the server and its thread."""
    scene.stop(self._server)

  @property
  def watched(self) -> bool:
    """Whether any browser is connected."""
    return bool(self._browsers)

  def stop(self) -> None:
    """Lets `run` return; any thread may call it."""
    self._stopped = True
    self._wake()

  def run(self) -> None:
    """Renders until `stop` is called, or for ever."""
    while not self._stopped:
      begin = time.monotonic()
      if self.render_next():
        # More would only keep the browser's machine from its own work.
        time.sleep(max(0.0, begin + _PERIOD - time.monotonic()))
      else:
        # While speech plays, what is wanted changes by itself.
        wait = 0.005 if self.controls.playing else _STILL / 4
        with self._changed:
          if not self._stopped:
            self._changed.wait(wait if self.watched else None)

  def render_next(self) -> bool:
    """Renders what is most due; returns whether anything was."""
    now, kind = time.monotonic(), self._shared_kind()
    ladder = self._face.rungs(kind)
    quick = self._quick(kind)
    ahead = self._seconds.get((kind, ladder[quick]), 0.0)
    expression = self.controls.expression(ahead)
    due = []
    if kind == "mesh":
      self._mesh.want(expression.tobytes(), now)
      rung = _next_rung(self._mesh, len(ladder), 0, now)
      due = [] if rung is None or not self.watched else [(rung, None)]
    else:
      for browser in list(self._browsers.values()):
        eye = scene.eye_of(browser.client)
        if eye is None:
          continue
        what = kind, expression.tobytes(), eye.pose.tobytes(), *eye[1:]
        browser.progress.want(what, now)
        rung = _next_rung(browser.progress, len(ladder), quick, now)
        if rung is not None:
          due.append((rung, browser))
    if not due:
      return False
    # Whoever has the coarsest picture of now comes first.
    rung, browser = min(due, key=lambda each: each[0])
    if browser is None:
      self._make_mesh(expression, rung)
    else:
      self._send(browser, expression, kind, rung)
    return True

  def render_all(self, note: str = "") -> None:
    """Renders for each browser as finely as it gets, changed or not.

    Args:
      note: for all to read, such as the step of a training run.
    """
    self._note = note
    kind = self._shared_kind()
    expression = self.controls.expression()
    finest = len(self._face.rungs(kind)) - 1
    if kind == "mesh" and self.watched:
      self._make_mesh(expression, max(0, finest - 1))
    for browser in list(self._browsers.values()) if kind != "mesh" else ():
      self._send(browser, expression, kind, finest)

  def picture(
    self, eye: framing.Eye, rung: Rung | None = None
  ) -> UInt8[np.ndarray, "h w 3"]:
    """What a browser with this camera is shown, meshes and cameras excepted.

    Args:
      eye: camera and canvas.
      rung: of the kind that is shown; the finest by default.
    """
    kind = self._shared_kind()
    if kind == "mesh":
      return framing.on_canvas(None, None, eye, smooth=True)
    rung = rung or self._face.rungs(kind)[-1]
    return self._picture(eye, self.controls.expression(), kind, rung)

  def warm_up(self, view: viewer_lib.Viewpoint) -> None:
    """Compiles the programs of images, and times them."""
    camera = scene.camera_of(view)
    for rung in self._face.rungs("image"):
      for _ in range(3):
        begin = time.monotonic()
        # Other planes each time, as while a slider moves.
        self._face.forget()
        self._face.render(self._face.mean, camera, "image", rung)
        self._count("image", rung, time.monotonic() - begin)

  def _wake(self) -> None:
    with self._changed:
      self._changed.notify_all()

  async def _connected(self, client: Any) -> None:
    client.camera.min_orbit_distance = 1.0
    client.camera.max_orbit_distance = 12.0
    self._browsers[client.client_id] = _Browser(client)

    async def moved(camera) -> None:
      del camera
      self._wake()

    client.camera.on_update(moved)
    self._wake()

  async def _disconnected(self, client: Any) -> None:
    self._browsers.pop(client.client_id, None)
    self._wake()

  def _shared_kind(self) -> str:
    """What is shown now; at a change, clears what was."""
    kind = self.controls.kind
    for frustum in self._frusta:
      if frustum.visible != self.controls.frusta:
        frustum.visible = self.controls.frusta
    if kind != self._kind:
      self._kind = kind
      for browser in list(self._browsers.values()):
        browser.progress = _Progress()
        if kind == "mesh":
          browser.client.scene.set_background_image(None)
      self._mesh = _Progress()
      if self._mesh_node is not None and kind != "mesh":
        self._mesh_node.remove()
        self._mesh_node = None
    return kind

  def _quick(self, kind: str) -> int:
    """The finest rung that is quick enough while something moves."""
    times = [
      self._seconds.get((kind, rung), math.inf)
      for rung in self._face.rungs(kind)
    ]
    most = max(_BUDGET, _WORTH * min(times[0], _BUDGET))
    return max([i for i, seconds in enumerate(times) if seconds < most] or [0])

  def _count(self, kind: str, rung: Rung, seconds: float) -> None:
    key = kind, rung
    before = self._seconds.get(key)
    # The first is mostly compilation; the rest is smoothed.
    if before is None or before == math.inf:
      self._seconds[key] = math.inf if before is None else seconds
    else:
      self._seconds[key] = 0.7 * before + 0.3 * seconds
    # What was too slow once is tried again some day.
    ladder = self._face.rungs(kind)
    for finer in ladder[ladder.index(rung) + 1 :]:
      if (kind, finer) in self._seconds:
        self._seconds[kind, finer] *= _FADES

  def _picture(self, eye, expression, kind, rung) -> np.ndarray:
    part = framing.part_with_head(eye, self._window)
    picture = None
    if part is not None:
      picture = self._face.render(expression, part.camera, kind, rung)
    return framing.on_canvas(picture, part, eye, smooth=kind == "image")

  def _send(self, browser, expression, kind, index) -> None:
    eye = scene.eye_of(browser.client)
    if eye is None:
      return
    begin = time.monotonic()
    rung = self._face.rungs(kind)[index]
    picture = self._picture(eye, expression, kind, rung)
    if browser.client.client_id in self._browsers:
      browser.client.scene.set_background_image(
        picture, format="jpeg", jpeg_quality=90
      )
      browser.client.flush()
      self.num_pictures += 1
    browser.progress.rung = index
    seconds = time.monotonic() - begin
    first = (kind, rung) not in self._seconds
    self._count(kind, rung, seconds)
    made = "by super-resolution from" if rung.upsampled else "of"
    sentence = f"{kind} {made} {rung.num}x{rung.num} rays"
    self._report(f"{sentence}, compiled" if first else sentence, seconds)

  def _make_mesh(self, expression, index) -> None:
    begin = time.monotonic()
    rung = self._face.rungs("mesh")[index]
    self._mesh.rung = index
    try:
      mesh = self._face.mesh(expression, rung)
    except InputError as error:
      self._report(str(error), 0.0)
      return
    # Without the colours of its points, which are those of a soft volume's
    # inside: shading shows the shape.
    self._mesh_node = self._server.scene.add_mesh_simple(
      "/face", mesh.vertices, mesh.faces, color=_CLAY
    )
    self.num_pictures += 1
    self._report(f"mesh of {rung.num}^3 cells", time.monotonic() - begin)

  def _report(self, sentence: str, seconds: float) -> None:
    # Not for every picture while something moves: nobody could read it.
    now = time.monotonic()
    if now - self._reported_at > 0.2:
      self._reported_at = now
      self.controls.report(f"{self._note}{sentence}, {1e3 * seconds:.0f} ms.")


def _next_rung(
  progress: _Progress, num: int, quick: int, now: float
) -> int | None:
  """The rung that is due of `num`; None while there is nothing to do."""
  if progress.rung < 0:
    return quick
  still = now - progress.changed_at >= _STILL
  return progress.rung + 1 if still and progress.rung + 1 < num else None
