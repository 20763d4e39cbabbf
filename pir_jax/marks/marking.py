"""Which marks an output gets.

r rows and c columns of a frame.
"""

import sys
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from pir_jax.marks import label, watermark
from pir_jax.media import blending
from pir_jax.types import InputError

CHOICES = ("all", "none")
WITHOUT = (
  "no signed manifest states by whom and from what the video was made, and no "
  "watermark shows that it was generated; only a comment in the metadata does, "
  "which is easily lost"
)


class Marking(NamedTuple):
  """Marks of an output.

  Attributes:
    mark: "all", or "none": neither manifest nor watermark.
    visible: also a label in a corner.
  """

  mark: str = "all"
  visible: bool = False

  @classmethod
  def of(cls, mark: str, visible: bool) -> "Marking":
    """Returns the marks, and warns of what is lost.

    Raises:
      InputError: there is no such choice.
    """
    if mark not in CHOICES:
      raise InputError(f"mark={mark} must be one of {', '.join(CHOICES)}.")
    if mark == "none":
      # Standard output may be the video.
      note = f"Without marks: {WITHOUT}. The law may require them."
      print(note, file=sys.stderr)
    return cls(mark, visible)

  @property
  def is_signed(self) -> bool:
    """Whether a manifest goes into files."""
    return self.mark == "all"

  @property
  def pattern(self) -> blending.Pattern | None:
    """The watermark, to be added to inpainted pixels."""
    return watermark.pattern if self.mark == "all" else None

  def labelled(
    self, frame: UInt8[np.ndarray, "r c 3"]
  ) -> UInt8[np.ndarray, "r c 3"]:
    """Returns the frame, with the label where it is wanted."""
    return label.put(frame) if self.visible else frame


ALL_MARKS = Marking()
