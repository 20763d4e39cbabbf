"""Counts the bytes a compiled program moves in memory and between devices.

Read from the text of the optimised program, since XLA's own totals take the
body of a loop once however often it runs.
"""

import functools
import math
import re
from collections.abc import Callable
from typing import NamedTuple

COLLECTIVES = (
  "all-reduce",
  "all-gather",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
)

_BITS = {"pred": 8, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](\{[^}]*\})?")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_OPCODE = re.compile(r"([a-z][\w\-]*)\(")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_NAME = re.compile(r"%([\w.\-]+)")
# Of no bytes of their own.
_FREE = frozenset(
  (
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "after-all",
    "partition-id",
    "replica-id",
    "opt-barrier",
    "add-dependency",
  )
)
_SLICES = frozenset(("dynamic-slice", "gather", "slice"))


class Instruction(NamedTuple):
  """A line of a program.

  Attributes:
    name: of its result.
    shape: of its result, as written.
    opcode: what it does.
    operands: names of its inputs.
    attributes: what follows them.
    root: whether it is its computation's result.
  """

  name: str
  shape: str
  opcode: str
  operands: tuple[str, ...]
  attributes: str
  root: bool


class Traffic(NamedTuple):
  """Bytes of one run on one device, loops multiplied.

  Attributes:
    memory: read from and written to the device's main memory; what the compiler
      keeps on the chip does not count.
    collectives: of the arrays that each kind of collective returns, or a
      reduce-scatter takes.
  """

  memory: float
  collectives: dict[str, float]


def traffic(text: str) -> Traffic:
  """Counts the bytes that a program moves.

  Args:
    text: of the optimised program (`jax.stages.Compiled.as_text`).

  Raises:
    ValueError: it holds no entry computation.
  """
  computations, entry = parse(text)
  if not entry:
    raise ValueError("the text is no program: it has no ENTRY")
  return _Count(computations).of(entry)


def parse(text: str) -> tuple[dict[str, list[Instruction]], str]:
  """Returns the computations by name, and the name of the entry."""
  computations: dict[str, list[Instruction]] = {}
  entry, lines = "", None
  for line in text.splitlines():
    if lines is None:
      match = _COMPUTATION.match(line)
      if match:
        lines = computations.setdefault(match[2], [])
        entry = match[2] if match[1] else entry
    elif line.startswith("}"):
      lines = None
    else:
      match = _INSTRUCTION.match(line)
      if match:
        lines.append(_instruction(*match.groups()))
  return computations, entry


def _instruction(root, name, rest):
  begin = _end_of_shape(rest)
  opcode = _OPCODE.match(rest, begin)
  shape, stop = rest[:begin], _closing(rest, opcode.end() - 1)
  inside = rest[opcode.end() : stop]
  operands = tuple(_NAME.findall(inside))
  if opcode[1] in ("constant", "parameter"):
    operands = (inside,)
  return Instruction(
    name, shape, opcode[1], operands, rest[stop + 1 :], bool(root)
  )


def _end_of_shape(rest: str) -> int:
  """Returns where the opcode begins."""
  if rest.startswith("("):
    return _closing(rest, 0) + 2
  return rest.index(" ") + 1


def _closing(text: str, begin: int) -> int:
  depth = 0
  for i in range(begin, len(text)):
    depth += (text[i] == "(") - (text[i] == ")")
    if not depth:
      return i
  raise ValueError(f"a bracket is not closed: {text[begin : begin + 80]}")


def num_bytes(shape: str, *, on_chip: bool = True) -> float:
  """Returns the bytes of an array or a tuple, as written in a program.

  Args:
    shape: such as `f32[8,128]{1,0:T(8,128)S(1)}`.
    on_chip: whether arrays in the chip's own memory (S(1)) count.
  """
  total = 0.0
  for kind, sides, layout in _ARRAY.findall(shape):
    if not on_chip and "S(" in layout:
      continue
    size = math.prod(int(side) for side in sides.split(",") if side)
    total += size * _num_bits(kind) / 8
  return total


def _num_bits(kind: str) -> int:
  if kind in _BITS:
    return _BITS[kind]
  return int(re.search(r"\d+", kind)[0])


class _Count:
  """Counts every computation once."""

  def __init__(self, computations: dict[str, list[Instruction]]):
    self._computations = computations
    self._by_name = {
      name: {line.name: line for line in lines}
      for name, lines in computations.items()
    }
    self.of: Callable[[str], Traffic] = functools.cache(self._of)

  def _of(self, name: str) -> Traffic:
    memory, collectives = 0.0, dict.fromkeys(COLLECTIVES, 0.0)
    for line in self._computations[name]:
      for times, inner in self._inner(line):
        part = self.of(inner)
        memory += times * part.memory
        for kind, value in part.collectives.items():
          collectives[kind] += times * value
      kind = line.opcode.removesuffix("-start")
      if kind in COLLECTIVES:
        collectives[kind] += self._exchanged(kind, name, line)
      memory += self._moved(name, line)
    return Traffic(memory, collectives)

  def _inner(self, line: Instruction) -> list[tuple[float, str]]:
    """Returns which computations it runs, and how often."""
    if line.opcode == "while":
      condition, body = (
        _attribute(line, word) for word in ("condition", "body")
      )
      times = self._trips(condition)
      return [(times, body), (times, condition)]
    if line.opcode == "conditional":
      names = _branches(line)
      return [(1.0, max(names, key=lambda name: self.of(name).memory))]
    if line.opcode == "call":
      return [(1.0, _attribute(line, "to_apply"))]
    if line.opcode == "async-start":
      return [(1.0, _attribute(line, "calls"))]
    return []

  def _trips(self, condition: str) -> float:
    """Returns the bound of `i < bound`, of loops that count from 0; else 1."""
    seen, bounds = [condition], []
    for name in seen:
      for line in self._computations[name]:
        if line.opcode == "fusion":
          seen.append(_attribute(line, "calls"))
        if line.opcode == "constant" and line.shape.startswith("s32[]"):
          bounds.append(int(line.operands[0]))
    return float(max([b for b in bounds if b > 0], default=1))

  def _exchanged(self, kind: str, name: str, line: Instruction) -> float:
    size = sum(
      num_bytes(self._by_name[name][operand].shape) for operand in line.operands
    )
    if kind != "all-gather":
      return size
    if line.opcode.endswith("-start"):  # A tuple of inputs and outputs.
      return num_bytes(line.shape) - size
    return num_bytes(line.shape)

  def _moved(self, name: str, line: Instruction) -> float:
    """Returns the bytes to and from memory of one line."""
    if line.opcode in _FREE or line.opcode.endswith("-done"):
      return 0.0
    if line.opcode in ("while", "conditional", "call", "async-start"):
      return 0.0  # What is inside counts.
    shapes = [
      self._by_name[name][operand].shape
      for operand in line.operands
      if operand in self._by_name[name]
    ]
    if line.opcode == "fusion":
      return self._fused(_attribute(line, "calls"), line.shape, shapes)
    result = num_bytes(line.shape, on_chip=False)
    sizes = [num_bytes(shape, on_chip=False) for shape in shapes]
    if line.opcode in ("copy-start", "slice-start"):
      # The result holds source and target: each once.
      return result - sum(sizes) * (line.opcode == "slice-start")
    if line.opcode in _SLICES:
      return 2 * result
    if line.opcode in ("dynamic-update-slice", "scatter"):
      return 2 * sizes[-1 if line.opcode == "scatter" else 1]
    return result + sum(sizes)

  def _fused(self, name: str, result: str, inputs: list[str]) -> float:
    """Returns the bytes a fusion moves: of sliced arrays only the slices."""
    lines, by_name = self._computations[name], self._by_name[name]

    def origin(line: Instruction) -> Instruction:
      while line.opcode == "bitcast":
        line = by_name[line.operands[0]]
      return line

    root = next(line for line in lines if line.root)
    made = [root]
    if root.opcode == "tuple":
      made = [by_name[operand] for operand in root.operands]
    total, updated = 0.0, set()
    shapes = _ARRAY.finditer(result)
    for line in made:
      # A line of several results, such as a reduction of pairs, is a tuple.
      several = [next(shapes)[0] for _ in _ARRAY.findall(line.shape)]
      size, line = num_bytes(" ".join(several), on_chip=False), origin(line)
      if line.opcode == "dynamic-update-slice" and size:  # In its own place.
        size = num_bytes(by_name[line.operands[1]].shape)
        updated.add(origin(by_name[line.operands[0]]).name)
      total += size
    for line in lines:
      if line.opcode != "parameter":
        continue
      size = num_bytes(inputs[int(line.operands[0])], on_chip=False)
      if not size or line.name in updated:
        continue
      total += self._read(name, line, size)
    return total

  def _read(self, name: str, array: Instruction, size: float) -> float:
    """Returns how much of an array a fusion reads: slices, or all `size`."""
    total = 0.0
    for line in self._computations[name]:
      if array.name not in line.operands:
        continue
      if line.opcode == "bitcast":
        total += self._read(name, line, size)
      elif line.opcode == "fusion":  # One within another.
        inner = _attribute(line, "calls")
        place = str(line.operands.index(array.name))
        parameter = next(
          other
          for other in self._computations[inner]
          if other.opcode == "parameter" and other.operands == (place,)
        )
        total += self._read(inner, parameter, size)
      else:
        total += num_bytes(line.shape) if line.opcode in _SLICES else size
    return min(total, size)


def _attribute(line: Instruction, word: str) -> str:
  return re.search(rf"\b{word}=%?([\w.\-]+)", line.attributes)[1]


def _branches(line: Instruction) -> list[str]:
  listed = re.search(r"branch_computations=\{([^}]*)\}", line.attributes)
  if listed:
    return [name.strip().lstrip("%") for name in listed[1].split(",")]
  return [
    _attribute(line, word) for word in ("true_computation", "false_computation")
  ]
