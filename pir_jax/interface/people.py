"""The people on the page: a folder each, with clip, networks and videos.

person.json, clip.SUFFIX, source.mp4 (for browsers), data/ (`prepare`),
runs/VARIANT/STAGE (`train`), runs/VARIANT/report (`evaluate`),
videos/NAME/{speech.SUFFIX, out.mp4, video.json} (`reenact`).
"""

import dataclasses
import json
import pathlib
import re
import secrets
import shutil
import time
from typing import Any

from pir_jax.data import manifest
from pir_jax.types import InputError

STAGES = ("expression", "triplane", "inpainting")
# Variants of the experiments, and what a user must know of each.
VARIANTS = {
  "demo": "Standard: about five minutes on two CPU cores",
  "live": "Quick to use, less sharp: about as long",
  "small": "Sharper: about an hour",
}
_ID = re.compile(r"[0-9a-f]{16}")
_FILES = re.compile(
  r"source\.mp4|data/(report\.html|thumbnails\.jpg)"
  r"|runs/[a-z]+/report/(held_out|mouths)\.png"
  r"|videos/[0-9a-f]{16}/out\.mp4"
)
_LONGEST_NAME = 60


@dataclasses.dataclass(kw_only=True)
class Video:
  """A video that was made, or is being made.

  Attributes:
    id: name of its folder.
    speech: what the speech was called.
    created: seconds since the epoch.
    is_made: it is there.
  """

  id: str
  speech: str
  created: float
  is_made: bool


class Person:
  """A person's folder."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.id = folder.name

  @property
  def record(self) -> dict[str, Any]:
    """Name, time of creation and consent, as they were written down."""
    try:
      return json.loads((self.folder / "person.json").read_text())
    except (OSError, ValueError):
      return {}

  @property
  def name(self) -> str:
    return str(self.record.get("name") or "Nameless")

  @property
  def clip(self) -> pathlib.Path | None:
    """The video of the person."""
    return next(iter(sorted(self.folder.glob("clip.*"))), None)

  @property
  def source(self) -> pathlib.Path:
    """Of the copy of the clip that browsers play."""
    return self.folder / "source.mp4"

  @property
  def data(self) -> pathlib.Path:
    """Of the prepared clip, where it is prepared."""
    return self.folder / "data"

  def prepared(self) -> manifest.Manifest | None:
    """Returns the manifest of the prepared clip; None before."""
    try:
      return manifest.load_manifest(self.data)
    except InputError:
      return None

  def runs(self, variant: str) -> pathlib.Path:
    """Returns the folder of the runs of a variant."""
    return self.folder / "runs" / variant

  def variant(self) -> str | None:
    """Returns the variant that was trained whole last; None before."""
    ends = {}
    for variant in VARIANTS:
      files = [self.runs(variant) / stage / "finished" for stage in STAGES]
      if all(file.is_file() for file in files):
        ends[variant] = max(file.stat().st_mtime for file in files)
    return max(ends, key=ends.get, default=None)

  def videos(self) -> list[Video]:
    """Returns the videos that were asked for, the newest first."""
    videos = []
    for path in self.folder.glob("videos/*/video.json"):
      try:
        record = json.loads(path.read_text())
        video = Video(
          id=path.parent.name,
          speech=str(record["speech"]),
          created=float(record["created"]),
          is_made=(path.parent / "out.mp4").is_file(),
        )
      except (OSError, ValueError, KeyError, TypeError):
        continue  # Half deleted meanwhile.
      videos.append(video)
    return sorted(videos, key=lambda video: -video.created)

  def new_video(self, speech: str) -> pathlib.Path:
    """Makes the folder of a video to make with a speech of that name."""
    folder = self.folder / "videos" / secrets.token_hex(8)
    folder.mkdir(parents=True)
    record = {"speech": _clean(speech), "created": time.time()}
    (folder / "video.json").write_text(json.dumps(record))
    return folder

  def file(self, name: str) -> pathlib.Path | None:
    """Returns a file that a browser may see; None of any other name."""
    if not _FILES.fullmatch(name):
      return None
    path = self.folder / name
    inside = path.resolve().is_relative_to(self.folder.resolve())
    return path if inside and path.is_file() else None

  def allow(self) -> None:
    """Writes down that this person consents."""
    self._write({**self.record, "consent": time.time()})

  def _write(self, record: dict[str, Any]) -> None:
    part = self.folder / ".person.part"
    part.write_text(json.dumps(record))
    part.replace(self.folder / "person.json")


class People:
  """The folder of all of them."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    folder.mkdir(parents=True, exist_ok=True)

  def add(self, name: str) -> Person:
    """Makes the folder of a person of that name."""
    person = Person(self.folder / secrets.token_hex(8))
    person.folder.mkdir()
    person._write({"name": _clean(name), "created": time.time()})
    return person

  def get(self, id: object) -> Person:
    """Returns a person.

    Raises:
      InputError: there is none of this id.
    """
    if isinstance(id, str) and _ID.fullmatch(id):
      if (self.folder / id).is_dir():
        return Person(self.folder / id)
    raise InputError("There is no such person: choose one above.")

  def all(self) -> list[Person]:
    """Returns everybody, the newest first."""
    people = [
      Person(path)
      for path in self.folder.iterdir()
      if _ID.fullmatch(path.name) and path.is_dir()
    ]
    return sorted(people, key=lambda p: (-p.record.get("created", 0.0), p.id))

  def delete(self, person: Person) -> None:
    """Deletes a person with all that was made of them."""
    shutil.rmtree(person.folder, ignore_errors=True)


def _clean(name: str) -> str:
  """Shortens a name, and takes out what is no letter to look at."""
  shown = "".join(c if c.isprintable() else " " for c in name)
  return " ".join(shown.split())[:_LONGEST_NAME].strip()
