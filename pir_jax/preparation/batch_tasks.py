"""What there is to prepare: videos by place, and a name for each of them."""

import collections
import concurrent.futures
import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from pir_jax.data import hdtf, manifest
from pir_jax.media import video_reader
from pir_jax.preparation import batch_output, pipeline
from pir_jax.types import InputError

_RESERVED = {manifest.FILE_NAME, batch_output.REPORT, batch_output.FAILED}


class Input(NamedTuple):
  """A video, or a piece of one, to prepare.

  Attributes:
    video: absolute path.
    cut: the piece of it; None is all.
  """

  video: pathlib.Path
  cut: hdtf.Cut | None = None

  @property
  def source(self) -> str:
    """The name that the manifest gives."""
    return self.cut.source if self.cut else self.video.name


class Task(NamedTuple):
  """An input with its name in the data set.

  Attributes:
    name: of the clip's folder.
    input: what to prepare.
    sha256: of the video; "" where it cannot be read.
    key: of the result.
    reason: why it cannot even be tried, or "".
  """

  name: str
  input: Input
  sha256: str
  key: str
  reason: str = ""


def find_videos(places: Sequence[str]) -> list[Input]:
  """Videos by name, in folders (and folders in them), or in lists.

  Args:
    places: each a video, a folder, or a .txt file with a place a line.

  Raises:
    InputError: a place is not there or holds no video. A video that a list
      names may be missing: that is one clip's failure.
  """
  found: dict[pathlib.Path, None] = {}
  for place in places:
    path = pathlib.Path(os.path.abspath(place))
    if path.is_dir():
      inside = [
        each
        for each in sorted(path.rglob("*"))
        if each.suffix.lower() in hdtf.VIDEO_SUFFIXES
        and each.is_file()
        and not each.name.startswith(".")
      ]
      if not inside:
        raise InputError(f"{place} holds no video: name another folder.")
      found |= dict.fromkeys(inside)
    elif not path.exists():
      raise InputError(f"{place} does not exist: check the name.")
    elif path.suffix.lower() == ".txt":
      lines = path.read_text(encoding="utf-8-sig").splitlines()
      named = [line.strip() for line in lines]
      named = [line for line in named if line and not line.startswith("#")]
      if not named:
        raise InputError(f"{place} names no video: write one a line.")
      for line in named:
        # As written in the list, or beside the list.
        each = path.parent / line
        found[pathlib.Path(os.path.abspath(each))] = None
    else:
      found[path] = None
  return [Input(path) for path in found]


def find_pieces(annotations: str, places: Sequence[str]) -> list[Input]:
  """HDTF's pieces of the videos in a folder; says which cannot be had.

  Raises:
    InputError: there is not one.
  """
  if len(places) != 1:
    raise InputError("say --input=FOLDER once, the folder of HDTF's videos.")
  found = hdtf.read_annotations(annotations, os.path.abspath(places[0]))
  for sentence in found.skipped:
    print(f"left out: {sentence}")
  if found.missing:
    print(
      f"{len(found.missing)} videos are missing: {', '.join(found.missing)}"
    )
  if not found.cuts:
    raise InputError(
      f"{places[0]} holds no video that the annotations name: call them as"
      f" there, such as {(found.missing or ['RD_Radio1'])[0]}.mp4."
    )
  return [Input(video, cut) for video, cut in found.cuts]


def make_tasks(
  inputs: Sequence[Input],
  settings: pipeline.Settings,
  known: dict[str, batch_output.Known],
) -> list[Task]:
  """Names every input and its result.

  A clip is called as its video. Where several are called alike, in this run or
  in the data set, the first letters of the video's hash are added, and a number
  where even the contents are the same.
  """
  digest = settings.digest()
  videos = list(dict.fromkeys(each.video for each in inputs))
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    hashes = dict(zip(videos, pool.map(_hash, videos), strict=True))
  plain = {each: _plain_name(each) for each in inputs}
  often = collections.Counter(name.casefold() for name in plain.values())
  taken: set[str] = set()
  tasks = []
  # In order of names and paths, not as they were given.
  for each in sorted(
    inputs, key=lambda i: (plain[i], str(i.video), str(i.cut))
  ):
    sha256, reason = hashes[each.video]
    name = plain[each]
    there = known.get(name)
    # A clip of another video, not this one's prepared otherwise.
    other = there is not None and there.sha256 not in ("", sha256)
    if often[name.casefold()] > 1 or (other and sha256 and not each.cut):
      name = f"{name}-{sha256[:8] or 'unread'}"
    number, base = 1, name
    while name.casefold() in taken:
      number += 1
      name = f"{base}-{number}"
    taken.add(name.casefold())
    key = pipeline.key(sha256, digest, each.cut)
    tasks.append(Task(name, each, sha256, key, reason))
  return tasks


def _hash(video: pathlib.Path) -> tuple[str, str]:
  """(SHA-256, "") of a video, or ("", why not)."""
  try:
    return video_reader.digest(video), ""
  except InputError as error:
    return "", str(error)
  except OSError as error:
    return "", f"{error.strerror or error}: {video}."


def _plain_name(each: Input) -> str:
  name = each.cut.name if each.cut else each.video.stem
  name = re.sub(r"[^\w.\-]+", "_", name).lstrip(".")[:100] or "clip"
  return f"{name}_clip" if name.casefold() in _RESERVED else name
