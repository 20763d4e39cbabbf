"""Measures the watermark: what it survives, false alarms, and what it costs.

Command: python -m experiments.watermark --data=data/people --videos=people
  --model=runs/me --video=me.mp4 --audio=speech.wav --output=watermark.jsonl
Time: half an hour on two CPU cores; a stopped one goes on. --data are prepared
clips of the --videos: their own windows, blurred as the networks blur, are
pasted back as `reenact` does, in segments of 4 s; of --model there are true
reenactments. Each is encoded as `reenact` encodes, then attacked. --data and
--videos also give the scores of unmarked segments. Score: see RESULTS.
"""

import collections
import hashlib
import io
import json
import pathlib
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import safetensors.numpy
from absl import flags
from PIL import Image
from scipy import ndimage, stats

from pir_jax.data import records
from pir_jax.data.dataset import Clip
from pir_jax.inference import reenactor
from pir_jax.inference import source as source_lib
from pir_jax.inference.person import read_speech
from pir_jax.marks import watermark
from pir_jax.marks.marking import Marking
from pir_jax.media import blending, crops, encoders, fill, video_reader
from pir_jax.runtime import app

_DATA = flags.DEFINE_string("data", None, "Folder with prepared clips.")
_VIDEOS = flags.DEFINE_string("videos", None, "Folder with their videos.")
_MODEL = flags.DEFINE_multi_string("model", [], "Trained people.")
_VIDEO = flags.DEFINE_string("video", None, "Of the trained person.")
_AUDIO = flags.DEFINE_string("audio", None, "Speech for it.")
_OUTPUT = flags.DEFINE_string("output", None, "Where each row is kept.")
_MARKED = flags.DEFINE_integer("marked", 200, "Marked segments of --data.")

_SIDE, _BLUR = 192, 1.0  # Of the networks, in pixels.
_LENGTH = 100  # Frames of a segment.
_SECONDS = (25, 50, 100)  # Frames that the detector is shown.
_OTHERS = 4  # Other tiles that an unmarked segment is compared with.

Frames = list[np.ndarray]


def _video_of(clip: Clip) -> pathlib.Path:
  return pathlib.Path(_VIDEOS.value) / clip.manifest.source


def _cut(path: pathlib.Path, start: int) -> Frames:
  """Reads frames; a video that ends is played back and forth, as `reenact`."""
  frames = []
  for number, (_, image) in enumerate(video_reader.read_frames(path)):
    if number >= start + _LENGTH:
      break
    if number >= start:
      frames.append(image)
  return frames


def simulate(clip: Clip, start: int) -> Frames:
  """Pastes a clip's own windows back, blurred as the networks blur."""
  rows = {int(frame): row for row, frame in enumerate(clip.stored)}
  track, pattern, pasted = clip.track, Marking().pattern, []
  for number, frame in enumerate(_cut(_video_of(clip), start), start):
    if number in rows and track.present[number]:
      stored = safetensors.numpy.load(clip.frame_records[rows[number]])
      image, mask = (
        np.asarray(records.decode_picture(stored[name]))
        for name in ("image", "mask")
      )
      square = track.mask_window[number]
      image, mask = crops.network_window(image, mask > 0, _SIDE, square)
      image = ndimage.gaussian_filter(np.float32(image), (_BLUR, _BLUR, 0))
      square = crops.inside(track.window[number], square)
      frame = blending.paste(frame, square, image / 127.5 - 1, mask, pattern)
    pasted.append(frame)
  index = fill.frame_indices(len(pasted), _LENGTH)
  return [pasted[i] for i in index]


def starts(clip: Clip) -> list[int]:
  """Returns where segments begin: apart, and most of their frames stored."""
  count = len(clip.track.times)
  every = range(0, max(1, count - _LENGTH // 2), _LENGTH)
  stored = np.isin(np.arange(count), clip.stored) & clip.track.present
  return [i for i in every if stored[i : i + _LENGTH].mean() > 0.9]


def simulated(
  clips: list[Clip], wanted: int
) -> Iterator[tuple[str, Clip, int]]:
  """Yields first segments of all clips, then second ones, and so on."""
  by_clip = [(clip, starts(clip)) for clip in clips]
  for turn in range(max(len(x) for _, x in by_clip)):
    for clip, begins in by_clip:
      if turn < len(begins) and wanted > 0:
        wanted -= 1
        yield f"{clip.path.name}@{begins[turn]}", clip, begins[turn]


def reenacted(model: str) -> Iterator[Frames]:
  """Yields segments of a true reenactment."""
  source = source_lib.open_source(model, _VIDEO.value)
  wave = read_speech(_AUDIO.value, 40.0)
  tracked, size = source.tracked, 10 * _LENGTH
  expression = source.person.predict_expression(wave)[:size]
  index = fill.frame_indices(len(tracked.track.times), len(expression))
  kept = np.zeros(expression.shape[1], bool)
  frames = fill.read(tracked.path, tracked.track.times, index)
  pairs = reenactor.inpaint_frames(source, frames, expression, kept)
  part = []
  for _, after in pairs:
    part.append(after)
    if len(part) == _LENGTH:
      yield part
      part = []


def cost(model: str) -> dict[str, float]:
  """Measures a person's own frames inpainted, with and without the mark."""
  source = source_lib.open_source(model, _VIDEO.value)
  tracked = source.tracked
  index = np.arange(0, len(tracked.track.times), 4)
  wanted = tracked.track.expression[index]
  errors = collections.defaultdict(list)
  plain = source._replace(marking=Marking("none"))
  for name, each in (("marked", source), ("plain", plain)):
    frames = fill.read(tracked.path, tracked.track.times, index)
    pairs = reenactor.inpaint_frames(
      each, frames, wanted, np.zeros(wanted.shape[1], bool)
    )
    for number, (before, after) in zip(index, pairs, strict=True):
      window = tracked.track.window[number]
      mouth = tracked.mouth_masks(np.array([number]), 256)[0]
      pair = [crops.crop_window(x, window, 256) for x in (before, after)]
      error = (np.float32(pair[0]) - pair[1])[mouth]
      errors[name].append((error**2).mean())
  psnr = {n: 10 * np.log10(255**2 / np.mean(x)) for n, x in errors.items()}
  return {n: float(x) for n, x in psnr.items()}


def encode(frames: Frames, **options: str) -> Frames:
  """Encodes as `reenact` does, or with other options of x264, and decodes."""
  file = io.BytesIO()
  height, width = frames[0].shape[:2]
  with av.open(file, "w", format="mp4") as container:
    encoder = encoders.PictureEncoder(
      container, (width, height), Fraction(25), **options
    )
    for frame in frames:
      encoder.write(frame)
    encoder.finish()
  file.seek(0)
  with av.open(file) as container:
    return [x.to_ndarray(format="rgb24") for x in container.decode(video=0)]


def _resize(frames: Frames, width: int, height: int) -> Frames:
  size, method = (width, height), Image.Resampling.BICUBIC
  return [np.asarray(Image.fromarray(x).resize(size, method)) for x in frames]


def attacks(frames: Frames) -> Iterator[tuple[str, Frames]]:
  """Yields what becomes of an output, by name."""
  written = encode(frames)
  height, width = written[0].shape[:2]
  yield "as written", written
  for crf in ("23", "28"):
    yield f"CRF {crf}", encode(written, crf=crf, preset="medium")
  half = encode(
    _resize(written, width // 4 * 2, height // 4 * 2), crf="20", preset="medium"
  )
  yield "half", half
  back = encode(_resize(half, width, height), crf="20", preset="medium")
  yield "half and back", back
  top, left = round(0.07 * height) | 1, round(0.06 * width) | 1
  rows = slice(top, top + round(0.9 * height))
  columns = slice(left, left + round(0.9 * width))
  cropped = [np.ascontiguousarray(x[rows, columns]) for x in written]
  yield "cropped 10 %", encode(cropped, crf="23", preset="medium")


def marked_row(name: str, frames: Frames) -> dict:
  """Scores a segment after every attack."""
  scores = {}
  for attack, after in attacks(frames):
    for count in _SECONDS if attack == "CRF 28" else _SECONDS[-1:]:
      score = watermark.detect(after[:count]).score
      scores[f"{attack}, {count // 25} s"] = score
  return {"name": name, "scores": scores}


def unmarked_row(name: str, frames: Frames) -> dict:
  """Scores true footage against the mark's tiles, and against others."""
  planes, _ = watermark.accumulate(frames)
  seeds = [(2 * i + 1, 2 * i + 2) for i in range(_OTHERS)]
  scores = [watermark.score(planes)]
  return {
    "name": name,
    "unmarked": scores + [watermark.score(planes, x) for x in seeds],
  }


def rows(done: set[str]) -> Iterator[dict]:
  """Yields all rows that are not done yet, of any part a fair share first."""
  clips = [Clip.open(x.parent) for x in _manifests()]
  for model in _MODEL.value:
    if f"cost {model}" not in done:
      yield {"name": f"cost {model}", "psnr": cost(model)}
    names = [f"{model}@{i}" for i in range(10)]
    if not done.issuperset(names):
      # A short speech has fewer.
      for name, frames in zip(names, reenacted(model), strict=False):
        if name not in done:
          yield marked_row(name, frames)
  tasks = [("", *task) for task in simulated(clips, _MARKED.value)]
  for clip in clips:
    for start in starts(clip) or [0]:
      tasks.append(("unmarked ", f"{clip.path.name}@{start}", clip, start))
  for kind, name, clip, start in sorted(tasks, key=_order):
    if kind + name in done:
      continue
    if kind:
      yield unmarked_row(kind + name, _cut(_video_of(clip), start))
    else:
      yield marked_row(name, simulate(clip, start))


def _order(task: tuple[str, str, Clip, int]) -> tuple[bool, str]:
  """Mixes all kinds; large pictures, which take a minute each, come last."""
  kind, name, clip, _ = task
  large = clip.manifest.width * clip.manifest.height > 10**6
  return large, hashlib.sha256(f"{kind}{name}".encode()).hexdigest()


def _manifests() -> list[pathlib.Path]:
  return sorted(pathlib.Path(_DATA.value).glob("*/manifest.json"))


def report(kept: list[dict]) -> str:
  """Formats both tables."""
  marked = [row["scores"] for row in kept if "scores" in row]
  lines = [f"{len(marked)} marked segments; threshold {watermark.THRESHOLD}"]
  lines += [f"{'':22}{'detected':>10}{'lowest':>9}{'1 %':>7}{'median':>8}"]
  for name in marked[0] if marked else ():
    values = np.array([row[name] for row in marked])
    share = (values >= watermark.THRESHOLD).mean()
    one = np.percentile(values, 1)
    lines.append(
      f"{name:22}{100 * share:8.1f} %{values.min():9.1f}{one:7.1f}"
      f"{np.median(values):8.1f}"
    )
  chance = [row["unmarked"] for row in kept if "unmarked" in row]
  if chance:
    values = np.array(chance).ravel()
    place, width = stats.gumbel_r.fit(values)
    rate = stats.gumbel_r.sf(watermark.THRESHOLD, place, width)
    highest = max(row[0] for row in chance)
    lines.append(
      f"unmarked: {len(chance)} segments, {len(values)} scores: median "
      f"{np.median(values):.2f}, highest {values.max():.2f} (of the mark's own "
      f"tiles {highest:.2f}); {(values >= watermark.THRESHOLD).sum()} false "
      f"alarms, by a Gumbel fit {rate:.1e}"
    )
  for row in kept:
    if "psnr" in row:
      plain, marked_psnr = row["psnr"]["plain"], row["psnr"]["marked"]
      lines.append(
        f"{row['name']}: mouth {plain:.2f} dB, {marked_psnr:.2f} dB marked"
      )
  return "\n".join(lines)


def main() -> None:
  """Measures what is missing, and prints the tables."""
  (output,) = app.required(_OUTPUT)
  path = pathlib.Path(output)
  kept = []
  if path.exists():
    kept = [json.loads(line) for line in path.read_text().splitlines()]
  with path.open("a") as file:
    for row in rows({row["name"] for row in kept}):
      file.write(json.dumps(row) + "\n")
      file.flush()
      kept.append(row)
  print(report(kept))


if __name__ == "__main__":
  app.run(main)
