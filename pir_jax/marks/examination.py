"""Examines a video file for marks: which are there, and whether they hold."""

import json
import pathlib
from typing import Any, NamedTuple

from pir_jax.marks import manifest, run_card, watermark
from pir_jax.media import containers, video_reader, video_writer

NOTE = (
  "Missing marks prove nothing: they can be removed, and other programs make "
  "none of these."
)
_LONGEST = 400  # Characters of a line.
_SIGNED = {
  manifest.VALID: "no authority vouches for the signer",
  manifest.TRUSTED: "an authority that this machine trusts vouches for them",
}


class Examination(NamedTuple):
  """Marks of a file.

  Attributes:
    name: of the file.
    manifest: None without one.
    watermark: what the detector sees.
    comment: of the file's metadata, where it is pir_jax's.
    card: the run card beside it, where it is of this very file.
    has_other_card: whether there is one that is not.
  """

  name: str
  manifest: manifest.Manifest | None
  watermark: watermark.Detection
  comment: str
  card: dict[str, Any] | None
  has_other_card: bool = False

  @property
  def is_marked(self) -> bool:
    """Whether any mark of pir_jax is there."""
    signed = self.manifest is not None and self.manifest.is_ours
    return bool(signed or self.watermark.is_marked or self.comment)

  def text(self) -> str:
    """Returns a few lines for people."""
    seen = self.watermark
    mark = "detected" if seen.is_marked else "not detected"
    card = "beside it, of this very file" if self.card else "none"
    if self.has_other_card:
      card = "beside it, but not of this file as it is"
    lines = [
      self.name,
      *self._manifest_lines(),
      f"  watermark: {mark} (score {seen.score:.1f} in {seen.num_frames} "
      f"frames, detected from {watermark.THRESHOLD:g} on)",
      f"  comment:   {self.comment or 'none of pir_jax'}",
      f"  run card:  {card}",
    ]
    if not self.is_marked:
      lines.append("  No marks of pir_jax.")
    # What a file states must not steer a terminal.
    shown = ("".join(c if c.isprintable() else "?" for c in x) for x in lines)
    return "\n".join([*(line[:_LONGEST] for line in shown), NOTE])

  def _manifest_lines(self) -> list[str]:
    held = self.manifest
    if held is None:
      return ["  manifest:  none"]
    if held.state == manifest.INVALID:
      reasons = ", ".join(held.reasons)
      return [
        f"  manifest:  {held.state}: the file was changed after it was signed, "
        f"or the manifest is damaged ({reasons})"
      ]
    signer = f'"{held.signer}"' + ", your own key" * held.is_own
    lines = [
      f"  manifest:  {held.state}: {_SIGNED[held.state]}",
      f"             signed by {signer}, written by {held.generator}",
    ]
    inputs = held.record.get("inputs")
    for kind, each in inputs.items() if isinstance(inputs, dict) else ():
      if isinstance(each, dict):
        name, digest = each.get("name", ""), each.get("sha256", "")
        lines.append(f"             from {kind} {name} {digest}".rstrip())
    return lines

  def json(self) -> str:
    """Returns the same for programs."""
    held = self.manifest
    return json.dumps(
      {
        "file": self.name,
        "marked": self.is_marked,
        "manifest": held and held._asdict(),
        "watermark": self.watermark._asdict()
        | {"detected": self.watermark.is_marked},
        "comment": self.comment,
        "run card": self.card,
      },
      indent=2,
    )


def examine(path: str | pathlib.Path) -> Examination:
  """Looks for every mark in a video file.

  Raises:
    InputError: it is no video, or a damaged one.
  """
  path = pathlib.Path(path)
  with containers.open_media(path) as container:
    containers.video_stream(container, path)
    comment = container.metadata.get("comment", "")
  frames = (image for _, image in video_reader.read_frames(path))
  card = run_card.read(run_card.place_of(path))
  other = card and run_card.output_of(card)["sha256"] != video_reader.digest(
    path
  )
  return Examination(
    str(path),
    manifest.read(path),
    watermark.detect(frames),
    comment if comment.startswith(video_writer.COMMENT) else "",
    None if other else card,
    bool(other),
  )
