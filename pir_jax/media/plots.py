"""Contact sheets of frames and plots of curves over time.

t frames, h height, w width.
"""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

_LABEL = 22  # Pixels above each row for its name.
_COLOURS = ("black", "crimson", "steelblue", "darkorange", "seagreen")


def contact_sheet(
  rows: dict[str, UInt8[np.ndarray, "t h w 3"]],
  *,
  num_columns: int = 6,
  side: int = 192,
) -> Image.Image:
  """Makes one row of evenly spaced frames for each name.

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
  canvas = ImageDraw.Draw(sheet)
  font = ImageFont.load_default(size=14)
  for row, (name, frames) in enumerate(rows.items()):
    top = row * (side + _LABEL)
    canvas.text((4, top + 2), name, fill="black", font=font)
    for column, index in enumerate(chosen):
      picture = Image.fromarray(frames[index]).resize(
        (width, side), Image.Resampling.LANCZOS
      )
      sheet.paste(picture, (column * width, top + _LABEL))
  return sheet


def curves(
  panels: dict[str, dict[str, Float[np.ndarray, "_"]]],
  *,
  frame_rate: float,
  unit: str,
  size: tuple[int, int] = (900, 220),
) -> Image.Image:
  """Plots lines over time, in panels; a panel's lines share a scale.

  Args:
    panels: title -> name -> values.
    frame_rate: values a second.
    unit: of the values.
    size: width and height of a panel in pixels.
  """
  width, height = size
  picture = Image.new("RGB", (width, len(panels) * height), "white")
  canvas = ImageDraw.Draw(picture)
  font = ImageFont.load_default(size=13)
  left, top, bottom = 50, 2 * _LABEL, height - _LABEL
  for number, (title, lines) in enumerate(panels.items()):
    base = number * height
    canvas.text((left, base + 4), title, fill="black", font=font)
    low = min(values.min() for values in lines.values())
    high = max(max(v.max() for v in lines.values()), low + 1e-6)
    longest = max(len(values) for values in lines.values())
    step = (width - left - 10) / max(longest - 1, 1)
    for value in (low, high):
      y = base + bottom - (value - low) / (high - low) * (bottom - top)
      canvas.line([(left, y), (width - 10, y)], fill="lightgrey")
      canvas.text((2, y - 7), f"{value:.1f}", fill="grey", font=font)
    canvas.text((2, base + top + 14), unit, fill="grey", font=font)
    for second in range(int(longest / frame_rate) + 1):
      x = left + second * frame_rate * step
      canvas.line([(x, base + bottom), (x, base + bottom + 4)], fill="grey")
      canvas.text((x, base + bottom + 4), f"{second} s", fill="grey", font=font)
    place = left
    for colour, (name, values) in zip(_COLOURS, lines.items(), strict=False):
      y = base + bottom - (values - low) / (high - low) * (bottom - top)
      x = left + step * np.arange(len(values))
      canvas.line(list(zip(x, y, strict=True)), fill=colour, width=2)
      canvas.text((place, base + _LABEL), name, fill=colour, font=font)
      place += 20 + canvas.textlength(name, font=font)
  return picture
