"""Contact sheets: frames side by side, so that a person can look at them.

t frames, h height, w width.
"""

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

_LABEL = 22  # Pixels above each row for its name.


def contact_sheet(
  rows: dict[str, UInt8[np.ndarray, "t h w 3"]],
  *,
  num_columns: int = 6,
  side: int = 192,
) -> Image.Image:
  """One row of evenly spaced frames for each name.

  Args:
    rows: name -> frames, all of one length.
    num_columns: frames shown of each row; fewer where there are fewer.
    side: height of a frame on the sheet, in pixels.
  """
  first = next(iter(rows.values()))
  num = min(num_columns, len(first))
  chosen = np.linspace(0, len(first) - 1, num).round().astype(int)
  width = round(side * first.shape[2] / first.shape[1])
  sheet = Image.new("RGB", (num * width, len(rows) * (side + _LABEL)), "white")
  draw = ImageDraw.Draw(sheet)
  font = ImageFont.load_default(size=14)
  for row, (name, frames) in enumerate(rows.items()):
    top = row * (side + _LABEL)
    draw.text((4, top + 2), name, fill="black", font=font)
    for column, index in enumerate(chosen):
      picture = Image.fromarray(frames[index]).resize(
        (width, side), Image.Resampling.LANCZOS
      )
      sheet.paste(picture, (column * width, top + _LABEL))
  return sheet
