"""The report on a reenacted video: its figures beside those of its source.

No ground truth is needed. Of a long video the first and the last minute are
measured, so that drift shows.
"""

import json
import pathlib

import numpy as np

from pir_jax.evaluation import screening
from pir_jax.evaluation.screening import Screened
from pir_jax.inference.opening import load
from pir_jax.inference.person import person_in
from pir_jax.media import plots, video_reader
from pir_jax.preparation import seen
from pir_jax.types import SAMPLE_RATE, InputError

MINUTE = 60.0

Path = str | pathlib.Path


def report(
  model: Path,
  source: Path,
  video: Path,
  output: Path,
  audio: Path = "",
  way: str = "bounce",
) -> str:
  """Writes the report on a reenacted video; returns its text.

  Args:
    model: folder of the runs that it was made with.
    source: the video that was reenacted.
    video: what came of it.
    output: folder for video.txt, .json and .png.
    audio: the driving speech; "" takes the sound of `video`.
    way: in which the source was filled up to the speech, one of `fill.WAYS`.

  Raises:
    InputError: a file cannot be used, or the video is of another size or rate.
  """
  output = pathlib.Path(output)
  made, before = video_reader.probe(video), video_reader.probe(source)
  if (made.width, made.height) != (before.width, before.height):
    raise InputError(
      f"{video} has {made.width}x{made.height} pixels and {source} "
      f"{before.width}x{before.height}: it was not made of that."
    )
  # The mean rate of a file depends a little on where its last frame ends.
  if abs(made.rate / before.rate - 1) > 0.02:
    raise InputError(
      f"{video} shows {float(made.rate):.2f} frames a second and {source} "
      f"{float(before.rate):.2f}: it was not made of that."
    )
  waveform = None
  if audio or made.has_audio:
    waveform = video_reader.read_audio(audio or video)
  person = load(model)
  known = person_in(person.people, before.sha256)
  person = person.with_identity(known.identity, known.stats)
  options = known.tracking_options()
  if len(known.look):  # As `reenact`: whoever looks like them.
    options |= {"face": None, "expected": known.look}
  seconds = float(made.duration)
  tracked = seen.track(source, video=before, seconds=seconds + 1, **options)
  names = pathlib.Path(video).name, tracked.video.name
  parts: list[tuple[float, float | None]] = [(0.0, None)]
  if seconds >= 2 * MINUTE:
    parts = [(0.0, MINUTE), (seconds - MINUTE, MINUTE)]
  screened, pictures = zip(
    *(_part(person, tracked, video, waveform, way, *part) for part in parts),
    strict=True,
  )
  text = as_text(screened[0], *names)
  values = _values(screened[0])
  if len(parts) > 1:
    text = f"The first minute of {seconds / 60:.0f}:\n{text}\n"
    text += drift(*screened)
    values = {"first_minute": values, "last_minute": _values(screened[1])}
  output.mkdir(parents=True, exist_ok=True)
  (output / "video.txt").write_text(text + "\n")
  (output / "video.json").write_text(json.dumps(values, indent=2) + "\n")
  sheet = plots.contact_sheet(pictures[-1], num_columns=screening.COLUMNS)
  sheet.save(output / "video.png")
  return text


def _part(person, tracked, video, waveform, way, start, seconds):
  """Measures one part, with the speech that belongs to it."""
  predicted = None
  if waveform is not None:
    stop = None if seconds is None else start + seconds
    places = (
      None if x is None else round(x * SAMPLE_RATE) for x in (start, stop)
    )
    waveform = waveform[slice(*places)]
    if np.any(waveform):
      predicted = person.predict_expression(waveform)
  return screening.screen(
    tracked,
    video,
    waveform,
    way,
    predicted=predicted,
    start=start,
    seconds=seconds,
  )


def drift(first: Screened, last: Screened) -> str:
  """Formats the last minute of a video beside its first."""
  rows = {
    "sharpness inside the mask": ("sharpness", 1),
    "jitter of the head": ("jitter", 1),
    "flicker inside the mask": ("flicker", 1),
    "lips follow the prediction": ("following", 1),
    "pictures after sound, ms": ("lateness", 1000),
  }
  lines = [f"{'':28}{'first minute':>14}{'last':>8}{'change':>9}"]
  for name, (field, factor) in rows.items():
    before, after = (factor * getattr(x, field) for x in (first, last))
    change = f"{after - before:+8.0f} "
    if factor == 1:
      share = after / before - 1 if before else float("nan")
      change = f"{100 * share:+7.1f} %"
    digits = 2 if factor == 1 else 0
    lines.append(f"{name:28}{before:14.{digits}f}{after:8.{digits}f}{change}")
  return "\n".join(lines)


def as_text(screened: Screened, video: str, source: str) -> str:
  """Formats the figures for a person."""
  ours, theirs = screened.output_opening, screened.source_opening
  lines = [
    f"{video} beside {source}: {screened.num_frames} frames, "
    f"{screened.num_faceless} of them without a face",
    "what was not inpainted (only the codec may change it):",
    f"  outside the window        {screened.outside_window:8.1f} dB",
    f"  in it, outside the mask   {screened.outside_mask:8.1f} dB, "
    f"{100 * screened.changed_outside:.2f} % of pixels differ by more than "
    "8/255",
    f"  inside the mask           {screened.inside_mask:8.1f} dB",
    "ratios to the source's own:",
    f"  seam at the mask's edge   {screened.seam_edge:8.2f}, in the feather "
    f"{screened.seam_feather:.2f}, of its tone {screened.seam_tone:.2f}",
    f"  jitter of the head        {screened.jitter:8.2f}",
    f"  flicker inside the mask   {screened.flicker:8.2f}",
    f"  sharpness inside the mask {screened.sharpness:8.2f}",
    f"eyelids follow the source's  {screened.blinks:7.2f} (correlation)",
    _following(screened),
    "opening of the lips, % of face height (5, 50, 95 % of the frames):",
    "  source                    " + "".join(f"{v:8.2f}" for v in theirs),
    "  reenacted                 " + "".join(f"{v:8.2f}" for v in ours),
  ]
  if screened.num_silent:
    verdict = "closed" if screened.closed else "NOT closed"
    lines.append(
      f"  in silence ({screened.num_silent} frames) "
      f"{screened.silent_opening:.2f}: {verdict}; "
      f"{100 * screened.silent_rank:.0f} % of the source's frames are more "
      "closed"
    )
  else:
    lines.append("  no silence in the sound")
  return "\n".join(lines)


def _following(screened: Screened) -> str:
  if not np.isfinite(screened.following):
    return "no speech that lips could follow"
  return (
    f"lips follow the prediction   {screened.following:7.2f} (correlation), "
    f"{1000 * screened.lateness:.0f} ms after the sound"
  )


def _values(screened: Screened) -> dict:
  return {name: _plain(v) for name, v in screened._asdict().items()}


def _plain(value):
  """Returns None for NaN and infinity, which JSON does not know."""
  if isinstance(value, tuple):
    return [_plain(v) for v in value]
  return value if np.isfinite(value) else None
