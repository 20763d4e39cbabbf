"""Frames made plain: upright, square, whole, one size, true colours."""

from fractions import Fraction

import av
import numpy as np
import pytest

from pir_jax.data import synthetic
from pir_jax.media import video_reader
from pir_jax.types import InputError

RED, BLUE, GREY = (220, 40, 40), (40, 40, 220), (90, 90, 90)


def _corners(index, width, height):
  """Red at the top left, blue at the top right, grey below."""
  image = np.full((height, width, 3), GREY, np.uint8)
  image[: height // 2, : width // 2] = RED
  image[: height // 2, width // 2 :] = BLUE
  return image


def _first(path):
  return next(video_reader.read_frames(path))[1]


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize(
  ("suffix", "flip"),
  [(".mp4", False), (".mp4", True), (".mkv", False)],  # mkv has no mirror.
)
def test_a_turned_or_mirrored_recording_is_upright(
  tmp_path, degrees, flip, suffix
):
  path = tmp_path / f"phone{suffix}"

  def turn(stream):
    stream.set_display_rotation(degrees, hflip=flip)

  synthetic.write_video(path, num_frames=2, image=_corners, set_up=turn)
  want = _corners(0, 64, 48)
  with av.open(str(path)) as container:
    data = next(container.decode(video=0)).side_data
    matrix = [1, 0, 0, 0, 1, 0, 0, 0, 1]
    if "DISPLAYMATRIX" in [side.type.name for side in data]:
      side = next(s for s in data if s.type.name == "DISPLAYMATRIX")
      matrix = np.sign(np.frombuffer(side, np.int32)).tolist()
  # Pixel by pixel: (x, y) goes to (a x + c y, b x + d y), shifted into place.
  a, b, _, c, d, *_ = matrix
  rows, columns = np.mgrid[:48, :64]
  x, y = a * columns + c * rows, b * columns + d * rows
  turned = np.zeros((np.ptp(y) + 1, np.ptp(x) + 1, 3), np.uint8)
  turned[y - y.min(), x - x.min()] = want
  assert video_reader.probe(path)[2:4] == turned.shape[1::-1]
  # Colours run over the edges, whose pixels share their chroma.
  near = np.abs(_first(path).astype(int) - turned).max(-1) < 16
  assert near.mean() > 0.85


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
@pytest.mark.parametrize(
  ("aspect", "size"), [("16/11", (93, 48)), ("2/3", (64, 72)), ("1", (64, 48))]
)
def test_pixels_become_square(tmp_path, aspect, size, suffix):
  path = tmp_path / f"wide{suffix}"

  def widen(stream):
    stream.codec_context.sample_aspect_ratio = Fraction(aspect)

  synthetic.write_video(path, num_frames=9, image=_corners, set_up=widen)
  image = _first(path)
  assert image.shape == (size[1], size[0], 3)
  info = video_reader.probe(path)
  assert (info.width, info.height) == size
  assert bool(info.remarks) == (aspect != "1")
  near = np.abs(image.astype(int) - _corners(0, *size)).max(-1) < 16
  assert near.mean() > 0.85


def test_anamorphic_and_turned_are_both_obeyed(tmp_path):
  path = tmp_path / "both.mp4"

  def set_up(stream):
    stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
    stream.set_display_rotation(90)

  synthetic.write_video(path, num_frames=2, set_up=set_up)
  assert _first(path).shape == (96, 48, 3)
  assert video_reader.probe(path)[2:4] == (48, 96)


def _combed(index, width, height):
  """A bar that moves between the half pictures of a frame."""
  image = np.full((height, width, 3), 60, np.uint8)
  start = 4 * index
  image[::2, start : start + 12] = 220
  image[1::2, start + 2 : start + 14] = 220
  return image


@pytest.mark.parametrize(
  ("name", "codec", "options"),
  [
    ("a.mp4", "libx264", {"flags": "+ildct", "x264-params": "tff=1"}),
    ("a.ts", "mpeg2video", {"flags": "+ildct+ilme"}),
  ],
)
def test_interlaced_pictures_lose_their_comb_and_no_frame(
  tmp_path, name, codec, options
):
  path = tmp_path / name
  synthetic.write_video(
    path,
    num_frames=25,
    size=(128, 96),
    image=_combed,
    codecs=(codec, "aac"),
    options=options | {"b": "4M"},
  )
  assert "interlaced" in video_reader.probe(path).remarks[0]
  frames = list(video_reader.read_frames(path))
  assert len(frames) == 25
  for index, (time, image) in enumerate(frames):
    assert time == Fraction(index, 25)
    comb = np.abs(np.diff(image[4:-4].astype(int), axis=0)).mean()
    stored = np.abs(np.diff(_combed(index, 128, 96).astype(int), axis=0))
    assert comb < 0.5 * stored.mean()
  # Times and the bar's place still agree: its middle moves 4 px a frame.
  light = [image.astype(float).mean((0, 2)) - 60 for _, image in frames[3:-3]]
  middle = [(row * np.arange(128)).sum() / row.sum() for row in light]
  np.testing.assert_allclose(np.diff(middle), 4, atol=1)


COLOURS = [(0, 0, 0), (255, 255, 255), (200, 60, 60), (60, 200, 60)]


@pytest.mark.parametrize(
  ("pixels", "space", "full", "transfer"),
  [
    ("yuv420p", 5, False, 0),
    ("yuv420p", 5, True, 0),
    ("yuv422p", 1, False, 0),
    ("yuv444p12le", 1, True, 0),
    ("yuv420p10le", 9, False, 0),
    ("yuv420p10le", 9, False, 16),
    ("yuv420p10le", 9, False, 18),
    ("rgb24", 0, True, 0),
  ],
)
def test_colours_come_back_whatever_the_tags(
  tmp_path, pixels, space, full, transfer
):
  path = tmp_path / "colours.mkv"
  want = np.repeat(np.array(COLOURS, np.uint8), 16, 0)[None].repeat(48, 0)
  codec = "libx264rgb" if pixels == "rgb24" else "ffv1"
  with av.open(str(path), "w") as container:
    stream = container.add_stream(codec, rate=25, options={"crf": "0"})
    stream.width, stream.height = 64, 48
    stream.pix_fmt = pixels
    context = stream.codec_context
    if space:
      context.colorspace, context.color_range = space, 1 + full
    if transfer:
      context.color_trc, context.color_primaries = transfer, 9
    frame = av.VideoFrame.from_ndarray(want, "rgb24")
    if space:
      frame = frame.reformat(
        format=pixels, dst_colorspace=space, dst_color_range=1 + full
      )
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    frame.color_trc = transfer or 2
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
  got = _first(path)[24, 8::16].astype(int)
  # Two conversions, each with rounding of 8 bits.
  np.testing.assert_allclose(got, COLOURS, atol=2)
  assert any("tone" in r for r in video_reader.probe(path).remarks) == (
    transfer > 0
  )


@pytest.mark.parametrize("space", [3, 10, 12, 14])
def test_colour_tags_that_ffmpeg_refuses_are_read(tmp_path, space):
  path = tmp_path / "odd.mkv"

  def tag(stream):
    stream.codec_context.colorspace = space

  synthetic.write_video(
    path, num_frames=1, codecs=("ffv1", "flac"), set_up=tag, image=_corners
  )
  np.testing.assert_allclose(_first(path)[40, 32], GREY, atol=2)


def _two_sizes(tmp_path, sizes):
  """Recordings of a browser change their size with the network's speed."""
  parts = []
  for index, size in enumerate(sizes):
    part = tmp_path / f"{index}.ts"
    synthetic.write_video(
      part,
      num_frames=10,
      size=size,
      image=_corners,
      times=[Fraction(10 * index + i, 25) for i in range(10)],
    )
    parts.append(part.read_bytes())
  path = tmp_path / "both.ts"
  path.write_bytes(b"".join(parts))
  return path


def test_all_frames_have_the_first_ones_size(tmp_path):
  path = _two_sizes(tmp_path, [(64, 48), (128, 96)])
  frames = [image for _, image in video_reader.read_frames(path)]
  assert {image.shape for image in frames} == {(48, 64, 3)}
  assert len(frames) == 20
  late = next(video_reader.read_frames(path, start=0.5))[1]
  assert late.shape == frames[0].shape
  last = np.abs(frames[-1].astype(int) - _corners(0, 64, 48)).max(-1)
  assert (last < 16).mean() > 0.85


def test_a_change_of_shape_is_refused_with_its_time(tmp_path):
  path = _two_sizes(tmp_path, [(64, 48), (48, 64)])
  with pytest.raises(InputError, match="from 64x48 to 48x64 at 0.4 s"):
    list(video_reader.read_frames(path))
