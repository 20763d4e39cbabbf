"""The panel beside the face: what is shown, speech, presets, sliders.

All browsers share it. Callbacks are coroutines: viser would run functions in
threads of their own, which outlive it.

e expression coefficients.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from pir_jax.interface import expression_groups
from pir_jax.interface.face_view import KINDS
from pir_jax.interface.timeline import FIELD, Timeline
from pir_jax.types import FaceSpace

_OPEN = ("jaw", "lips")  # Groups whose sliders are seen at first.


class Controls:
  """Widgets of a viser server, and what they say now.

  Attributes:
    kinds: that may be shown.
    frusta: whether the training cameras are shown.
  """

  kinds = (*KINDS, "mesh")

  def __init__(
    self,
    server: Any,
    space: FaceSpace,
    mean: Float[np.ndarray, "e"],
    changed: Callable[[], None],
    *,
    timeline: Timeline | None,
    title: str,
    frusta: bool,
  ):
    """Adds the widgets.

    Args:
      server: viser's.
      space: of the expressions.
      mean: where sliders start, and what reset returns to.
      changed: is called after every change; must return at once.
      timeline: of a speech file.
      title: of that file.
      frusta: whether there are training cameras.
    """
    self._server, self._changed = server, changed
    self._names, self._mean = space.expression_names, np.float32(mean)
    self._timeline = timeline
    gui = server.gui
    self._status = gui.add_markdown("")
    self._kind = gui.add_dropdown("Show", self.kinds)
    self._watch(self._kind)
    self._frusta = gui.add_checkbox(
      "Cameras",
      False,
      visible=frusta,
      hint="Those of the training frames; a click looks through one.",
    )
    self._watch(self._frusta)
    if timeline is not None:
      gui.add_markdown(f"Speech: {_plain(title)}")
      self._add_player(gui, title)
    self._presets = expression_groups.presets(self._names)
    if self._presets:
      choice = gui.add_button_group("Preset", tuple(self._presets))
      choice.on_click(self._on_preset)
    gui.add_button("Reset to the mean expression").on_click(self._on_reset)
    self._sliders: dict[str, Any] = {}
    ranges = dict(
      zip(
        self._names,
        expression_groups.slider_ranges(space, self._mean),
        strict=True,
      )
    )
    # As their boxes show it: no more digits than a slider's step.
    self._start = {
      name: round(mean, 2)
      for name, mean in zip(self._names, self._mean.tolist(), strict=True)
    }
    for group, names in expression_groups.grouped(self._names).items():
      with gui.add_folder(group.capitalize(), expand_by_default=group in _OPEN):
        for name in names:
          low, high = ranges[name]
          slider = gui.add_slider(
            expression_groups.short(name, group),
            low,
            high,
            0.01,
            self._start[name],
            hint=name,
          )
          self._sliders[name] = slider
          self._watch(slider)

  @property
  def kind(self) -> str:
    """What is shown."""
    kind = self._kind.value
    return kind if kind in self.kinds else self.kinds[0]

  @property
  def frusta(self) -> bool:
    """Whether the training cameras are to be shown."""
    return bool(self._frusta.value)

  @property
  def playing(self) -> bool:
    """Whether the speech runs."""
    return self._timeline is not None and self._timeline.playing

  def expression(self, ahead: float = 0.0) -> Float[np.ndarray, "e"]:
    """Raw coefficients that are due.

    What the sliders differ from where they start is added to the mean, or to
    the speech.

    Args:
      ahead: seconds until they will be seen.
    """
    # What comes from a browser may be anything.
    moved = np.nan_to_num(
      np.float32(
        [self._sliders[name].value - self._start[name] for name in self._names]
      )
    ).clip(-10, 10)
    predicted = self._timeline and self._timeline.at(ahead=ahead)
    return (self._mean if predicted is None else predicted) + moved

  def set(self, values: Mapping[str, float]) -> None:
    """Moves sliders by their names."""
    with self._server.atomic():
      for name, value in values.items():
        slider = self._sliders[name]
        slider.value = float(np.clip(value, slider.min, slider.max))
    self._changed()

  def show(self, kind: str) -> None:
    """Shows one of `kinds`."""
    self._kind.value = kind
    self._changed()

  def report(self, sentence: str) -> None:
    """Shows a sentence over the controls."""
    text = f"AI-generated face. {sentence}"
    if self._status.content != text:
      self._status.content = text

  def _watch(self, widget) -> None:
    async def notice(event) -> None:
      del event
      self._changed()

    widget.on_update(notice)

  def _add_player(self, gui, title: str) -> None:
    field = gui.add_text(FIELD, "")
    gui.add_html(self._timeline.player(title))

    async def receive(event) -> None:
      self._timeline.receive(event.target.value)
      self._changed()

    field.on_update(receive)

  async def _on_preset(self, event) -> None:
    self.set(self._start | dict(self._presets.get(event.target.value, {})))

  async def _on_reset(self, event) -> None:
    del event
    if self._timeline is not None:
      self._timeline.leave()
    self.set(self._start)


def _plain(text: str) -> str:
  """A name that Markdown shows as it is."""
  return "`" + text.replace("`", "'").replace("\n", " ") + "`"
