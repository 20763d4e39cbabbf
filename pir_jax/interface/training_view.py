"""Shows stage 2 live while it trains, between its steps.

On the training thread and from the averaged parameters: the run's results stay
what they would be without a viewer.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from absl import flags

from pir_jax.data.dataset import Dataset
from pir_jax.inference import viewer as viewer_lib
from pir_jax.interface import opening
from pir_jax.interface.face_view import FaceView
from pir_jax.interface.viewer_server import ViewerServer
from pir_jax.types import FaceSpace, InputError

_VIEW = flags.DEFINE_boolean(
  "view", False, "Show the implicit face in a browser while stage 2 trains."
)
_HOST = flags.DEFINE_string("view_host", "127.0.0.1", "Address for --view.")
_PORT = flags.DEFINE_integer(
  "view_port", 8080, "Port for --view; 0 is any free one.", 0, 65535
)
_EVERY = 3.0  # Seconds of training between two renders, at least,
_SHARE = 5  # and so many times what one takes.

Watch = Callable[[int, Any], None]


def address() -> tuple[str, int] | None:
  """Host and port of the flags; None where --view is not set."""
  return (_HOST.value, _PORT.value) if _VIEW.value else None


@contextlib.contextmanager
def shown_at(
  where: tuple[str, int] | None, stage: Any, data: Dataset, space: FaceSpace
) -> Iterator[Watch | None]:
  """Yields what watches a run for `loop.fit`; None for no viewer.

  On several processes the first serves, and the others watch nothing.

  Args:
    where: host and port; None for no viewer.
    stage: that is trained.
    data: on which; its first person is shown.
    space: of the expressions.

  Raises:
    InputError: it is not stage 2, its parameters are split over processes,
      viser is not installed, or the port is in use.
  """
  if where is not None:
    check(stage)
  if where is None or jax.process_index():
    yield None
    return
  view = TrainingView(stage, data, space, host=where[0], port=where[1])
  with contextlib.closing(view):
    print(f"the viewer is at {view.url}")
    yield view


def check(stage: Any) -> None:
  """Checks that a run has a face that this process can show.

  Raises:
    InputError: it has none, or only a part of it.
  """
  if stage.name != "triplane":
    raise InputError(
      f"--view shows the implicit face of stage 2, and this is {stage.name}: "
      "leave it out, or train experiments/triplane.py."
    )
  places = jax.tree.leaves(stage.shardings().ema)
  if not all(p.is_fully_replicated or p.is_fully_addressable for p in places):
    raise InputError(
      "--view needs all parameters on each process: leave it out, or set "
      "--config.sharding.fsdp to what one host has."
    )


class TrainingView:
  """Renders for the browsers now and then, when it is called after a step.

  Attributes:
    url: where browsers open it.
  """

  def __init__(
    self,
    stage: Any,
    data: Dataset,
    space: FaceSpace,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
  ):
    """Starts to serve.

    Args:
      stage: that is trained.
      data: on which; its first person is shown.
      space: of the expressions.
      host: address to listen at.
      port: to listen at; 0 is any free one.

    Raises:
      InputError: viser is not installed, or the port is in use.
    """
    self._stage = stage
    # Sizes alone: the parameters come with each step.
    abstract = stage.abstract_state()
    self._face = FaceView(
      self._generator(abstract),
      space,
      data[0].identity,
      data[0].expression_stats.mean,
    )
    self._server = ViewerServer(
      self._face,
      viewer_lib.of_clip(data[0].path),
      host=host,
      port=port,
      cameras=opening.cameras_of(data[0]),
    )
    self._server.controls.report("The first steps compile.")
    self.url = self._server.url
    self._due, self._took = -math.inf, math.inf

  def __call__(self, step: int, state: Any) -> None:
    """Renders, if a browser is there and it is time."""
    if time.monotonic() < self._due or not self._server.watched:
      return
    self._face.update(self._generator(state, _here))
    note = f"Step {step}: "
    if self._took == math.inf:  # The first is mostly compilation.
      self._server.render_all(note)
    begin = time.monotonic()
    self._server.render_all(note)
    end = time.monotonic()
    # The arrays are the run's own: the next step overwrites them.
    self._face.forget()
    # The least: others may have compiled as well.
    self._took = min(self._took, end - begin)
    self._due = end + max(_EVERY, _SHARE * self._took)

  def close(self) -> None:
    """Ends the server and its thread."""
    self._server.close()

  def _generator(self, state, place=lambda array: array):
    arrays = state.ema["generator"], state.nets["generator"].buffers
    return self._stage.generator.bind(*jax.tree.map(place, arrays))


def _here(array: jax.Array) -> jax.Array:
  """An array on one device of this process: no other takes part."""
  if array.is_fully_replicated:
    return array.addressable_data(0)
  return jax.device_put(array, jax.local_devices()[0])
