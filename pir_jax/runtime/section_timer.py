"""Times the sections of a long computation, and prints them as a table."""

import contextlib
import time
from collections.abc import Iterator
from typing import NamedTuple


class Span(NamedTuple):
  """One run of a section: its seconds and how many frames it processed."""

  seconds: float
  frames: int


class SectionTimer:
  """The runs of every section, in the order in which sections began.

  Attributes:
    spans: of each section the first, and all later ones as one: an hour of them
      takes no more memory than a minute.
  """

  def __init__(self):
    self.spans: dict[str, list[Span]] = {}

  @contextlib.contextmanager
  def measure(self, name: str, frames: int = 1) -> Iterator[None]:
    """Times a run of a section, unless it raises."""
    begin = time.perf_counter()
    yield
    self.add(name, time.perf_counter() - begin, frames)

  def add(self, name: str, seconds: float, frames: int) -> None:
    """Adds a run that was timed elsewhere."""
    first, *rest = [*self.spans.get(name, []), Span(seconds, frames)]
    sums = (sum(values) for values in zip(*rest, strict=True))
    self.spans[name] = [first, Span(*sums)] if rest else [first]

  def table(self) -> str:
    """Returns a line for each section, and their sum.

    The first run of a section is shown apart, as it may include a compilation;
    a section with only one run shows it there and per frame.
    """
    lines = [f"{'':30}{'first call':>12}{'then a frame':>14}{'in all':>10}"]
    whole, usual = 0.0, 0.0
    for name, spans in self.spans.items():
      rest = spans[1:] or spans
      each = sum(s.seconds for s in rest) / max(1, sum(s.frames for s in rest))
      total = sum(s.seconds for s in spans)
      whole, usual = whole + total, usual + each
      lines.append(
        f"{name:30}{spans[0].seconds:10.2f} s{1000 * each:11.1f} ms"
        f"{total:8.2f} s"
      )
    lines.append(f"{'together':30}{'':12}{1000 * usual:11.1f} ms{whole:8.2f} s")
    return "\n".join(lines)
