"""Synthetic media and prepared clips, for tests and examples.

t frames, h side of the window, e expression and i identity coefficients.
"""

import pathlib
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
from jaxtyping import Float, UInt8

from pir_jax.data import timing
from pir_jax.data.manifest import Manifest
from pir_jax.data.records import Frame, write_dataset
from pir_jax.data.track import Track
from pir_jax.media.video_reader import VideoInfo
from pir_jax.types import SAMPLE_RATE

CODECS = {
  ".mp4": ("libx264", "aac"),
  ".ts": ("libx264", "aac"),
  ".webm": ("libvpx-vp9", "libopus"),
}
# The quickest of each encoder, at a quality that keeps frame codes readable.
OPTIONS = {
  "libx264": {"crf": "18", "preset": "ultrafast"},
  "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
  "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "18"},
  "libsvtav1": {"preset": "12", "crf": "18"},
}
NAMES = ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "eyeBlinkLeft")


def speech_like(seconds: float, sample_rate: int, seed: int = 0) -> np.ndarray:
  """Synthesises a 120 Hz buzz, modulated like syllables; mono float32."""
  time = np.arange(round(seconds * sample_rate)) / sample_rate
  phase = np.random.default_rng(seed).uniform(0, 2 * np.pi)
  loudness = 0.5 - 0.5 * np.cos(2 * np.pi * 3 * time + phase)
  buzz = sum(np.sin(2 * np.pi * 120 * k * time) / k for k in range(1, 9))
  return (0.2 * loudness * buzz).astype(np.float32)


def moving_disc(index: int, width: int, height: int) -> np.ndarray:
  """Renders a frame with a disc moved by `index` steps; uint8 RGB.

  Its red corner block holds the index modulo 8 as brightness, which survives
  lossy coding.
  """
  rows, cols = np.mgrid[:height, :width]
  centre = width * (0.5 + 0.3 * np.sin(index / 5))
  disc = np.hypot(cols - centre, rows - height / 2) < height / 5
  image = np.full((height, width, 3), 90, np.uint8)
  image[disc] = (200, 160, 120)
  image[: height // 4, : width // 4] = (16 + 32 * (index % 8), 0, 0)
  return image


def frame_code(image: UInt8[np.ndarray, "h w 3"]) -> int:
  """Reads the index modulo 8 that moving_disc wrote into a frame."""
  height, width = image.shape[:2]
  block = image[: max(1, height // 4 - 2), : max(1, width // 4 - 2), 0]
  return round((float(np.median(block)) - 16) / 32) % 8


def write_video(
  path: str | pathlib.Path,
  *,
  num_frames: int,
  frame_rate: Fraction = Fraction(25),
  size: tuple[int, int] = (64, 48),
  sound: Float[np.ndarray, "n"] | None = None,
  sound_rate: int = SAMPLE_RATE,
  sound_start: float = 0.0,
  image: Callable[[int, int, int], np.ndarray] = moving_disc,
  times: Sequence[Fraction] | None = None,
  codecs: tuple[str, str] | None = None,
  pixels: str = "yuv420p",
  layout: str = "mono",
  options: dict[str, str] | None = None,
  container_options: dict[str, str] | None = None,
  set_up: Callable[[av.VideoStream], None] = lambda stream: None,
) -> None:
  """Writes a test video, with PCM-exact sound where the container has it.

  Args:
    path: its ending selects the container, and the default codecs.
    num_frames: of the video.
    frame_rate: frames a second.
    size: width and height; 4:2:0 in mp4 wants them even.
    sound: mono samples, or None; every channel of the layout gets them.
    sound_rate: of the samples.
    sound_start: seconds after time 0 at which the sound starts.
    image: makes a frame from its index, width and height.
    times: of the frames; None takes index / frame_rate.
    codecs: names of FFmpeg's encoders of picture and sound.
    pixels: FFmpeg's pixel format.
    layout: FFmpeg's channel layout.
    options: of the picture's encoder.
    container_options: of the file.
    set_up: called with the picture's stream before the first frame.
  """
  path = pathlib.Path(path)
  codecs = codecs or CODECS.get(path.suffix, ("libx264", "pcm_s16le"))
  clock = Fraction(1, 90000) if times else 1 / Fraction(frame_rate)
  with av.open(
    "file:" + str(path.absolute()), "w", options=container_options or {}
  ) as container:
    stream = container.add_stream(
      codecs[0], rate=frame_rate, options=options or OPTIONS.get(codecs[0], {})
    )
    stream.width, stream.height = size
    stream.pix_fmt = pixels
    stream.codec_context.time_base = clock
    set_up(stream)
    audio = None
    if sound is not None:
      audio = container.add_stream(codecs[1], rate=sound_rate)
      audio.layout = layout
    packets = []
    for index in range(num_frames):
      frame = av.VideoFrame.from_ndarray(image(index, *size), "rgb24")
      frame.time_base = clock
      frame.pts = round(times[index] / clock) if times else index
      packets += stream.encode(frame.reformat(format=pixels))
    packets += stream.encode(None)
    if audio is not None:
      packets += _encoded_sound(audio, sound, sound_rate, sound_start)
    for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
      container.mux(packet)


def _encoded_sound(stream, sound, sample_rate, start) -> list:
  context = stream.codec_context
  kind, layout = context.format.name, context.layout.name
  resampler = av.AudioResampler(
    kind, layout, sample_rate, frame_size=context.frame_size or 1024
  )
  channels = np.repeat(sound, context.channels)[None]
  frame = av.AudioFrame.from_ndarray(channels, "flt", layout)
  frame.sample_rate, frame.time_base = sample_rate, Fraction(1, sample_rate)
  frame.pts = round(start * sample_rate)
  packets = []
  for part in [*resampler.resample(frame), *resampler.resample(None), None]:
    packets += stream.encode(part)
  return packets


def _look_at(turn: float, nod: float, distance: float) -> np.ndarray:
  """Returns camera-to-world of a camera towards the origin, OpenCV axes."""
  cy, sy, cx, sx = np.cos(turn), np.sin(turn), np.cos(nod), np.sin(nod)
  around = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
  up = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
  pose = np.eye(4)
  # In the world y is up and the face looks along +z, where the camera is.
  pose[:3, :3] = around @ up @ np.diag([1.0, -1.0, -1.0])
  pose[:3, 3] = pose[:3, :3] @ np.array([0, 0, -distance])
  return pose


def synthetic_track(
  num_frames: int,
  *,
  frame_rate: float = 25.0,
  size: int = 64,
  identity_size: int = 3,
  seed: int = 0,
) -> Track:
  """Makes the track of a swaying, speaking head; coefficients are NAMES."""
  rng = np.random.default_rng(seed)
  times = np.arange(num_frames) / frame_rate
  phase = rng.uniform(0, 2 * np.pi, 6)
  pose = np.array(
    [
      _look_at(
        0.15 * np.sin(2 * t + phase[0]), 0.1 * np.sin(1.3 * t + phase[1]), 2.7
      )
      for t in times
    ]
  )
  intrinsics = np.array([[2.5, 0, 0.5], [0, 2.5, 0.5], [0, 0, 1.0]])
  waves = np.stack(
    [
      np.sin(2 * np.pi * f * times + p)
      for f, p in zip((3, 0.4, 0.5, 0.3), phase[2:], strict=True)
    ],
    -1,
  )
  expression = np.clip(0.4 + 0.4 * waves, 0, 1)
  every = np.ones(num_frames)
  return Track(
    times=times,
    present=every > 0,
    interpolated=every < 0,
    pose=pose.astype(np.float32),
    intrinsics=np.tile(intrinsics, (num_frames, 1, 1)).astype(np.float32),
    expression=expression.astype(np.float32),
    identity=rng.normal(size=identity_size).astype(np.float32),
    window=np.tile([size / 2, size / 2, size], (num_frames, 1)),
    mask_window=np.tile(np.float32([0.5, 0.5, 1]), (num_frames, 1)),
    landmarks=np.full((num_frames, 5, 2), 0.5, np.float32),
    error=every,
    face_height=every * size / 2,
    shot=np.zeros(num_frames, np.int32),
  )


def render_face(track: Track, index: int, side: int) -> Frame:
  """Renders an oval face at the head's position, its mouth open by jawOpen."""
  u, v = (np.mgrid[:side, :side][::-1] + 0.5) / side
  world_to_camera = np.linalg.inv(track.pose[index])
  k = track.intrinsics[index]

  def project(point):
    x, y, z = world_to_camera[:3, :3] @ point + world_to_camera[:3, 3]
    return k[0, 0] * x / z + k[0, 2], k[1, 1] * y / z + k[1, 2]

  def oval(point, wide, tall):
    x, y = project(np.array(point))
    return ((u - x) / wide) ** 2 + ((v - y) / tall) ** 2 < 1

  jaw = float(track.expression[index][0])
  image = np.empty((side, side, 3), np.uint8)
  image[..., 0], image[..., 1] = 40 + 60 * u, 60 + 60 * v
  image[..., 2] = 110
  head = oval((0, 0, 0), 0.3, 0.4)
  face = oval((0, -0.05, 0.2), 0.24, 0.3)
  image[head] = (120, 80, 50)
  image[face] = (215, 165, 135)
  for x in (-0.1, 0.1):
    image[oval((x, 0.05, 0.25), 0.035, 0.025)] = (40, 40, 60)
  image[oval((0, -0.15, 0.25), 0.09, 0.01 + 0.06 * jaw)] = (120, 20, 30)
  mouth = oval((0, -0.15, 0.25), 0.11, 0.09)
  return Frame(index, image, face, head | face, mouth)


def video_info(track: Track, side: int) -> VideoInfo:
  """Returns the metadata of a video with such a track."""
  return VideoInfo(
    name="synthetic",
    sha256="0" * 64,
    width=side,
    height=side,
    rate=Fraction(25),
    duration=timing.duration(track.times),
    num_frames=len(track.times),
    sound_rate=SAMPLE_RATE,
  )


def write_synthetic(
  path: str | pathlib.Path,
  *,
  num_frames: int = 55,
  side: int = 64,
  seed: int = 0,
  sound: bool = True,
  overwrite: bool = False,
) -> Manifest:
  """Writes a prepared clip of a synthetic face whose jaw follows its sound."""
  track = synthetic_track(num_frames, size=side, seed=seed)
  seconds = timing.duration(track.times)
  time = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
  jaw = np.interp(time, track.times, track.expression[:, 0])
  waveform = 0.3 * jaw * np.sin(2 * np.pi * 220 * time) if sound else jaw[:0]

  def frames() -> Iterator[Frame]:
    for index in timing.select_frames(track.times):
      yield render_face(track, int(index), side)

  return write_dataset(
    path,
    track,
    frames(),
    waveform.astype(np.float32),
    opening=track.expression[:, 0],
    video=video_info(track, side),
    expression_names=NAMES,
    overwrite=overwrite,
  )
