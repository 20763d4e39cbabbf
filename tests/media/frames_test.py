"""Frames made plain: upright, square, whole, one size, true colours."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image, ImageOps

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
  ("pixels", "space", "full"),
  [
    ("yuv420p", 5, False),
    ("yuv420p", 5, True),
    ("yuv422p", 1, False),
    ("yuv444p12le", 1, True),
    ("yuv420p10le", 9, False),
    ("rgb24", 0, True),
  ],
)
def test_colours_come_back_whatever_the_tags(tmp_path, pixels, space, full):
  path = tmp_path / "colours.mkv"
  want = np.repeat(np.array(COLOURS, np.uint8), 16, 0)[None].repeat(48, 0)
  _write_tagged(path, want, pixels, space, full)
  got = _first(path)[24, 8::16].astype(int)
  # Two conversions, each with rounding of 8 bits.
  np.testing.assert_allclose(got, COLOURS, atol=2)
  assert not video_reader.probe(path).remarks


def _write_tagged(path, image, pixels, space, full=False, transfer=0, wide=0):
  """Writes one picture, its code values under other tags."""
  codec = "libx264rgb" if pixels == "rgb24" else "ffv1"
  with av.open(str(path), "w") as container:
    stream = container.add_stream(codec, rate=25, options={"crf": "0"})
    stream.width, stream.height = image.shape[1::-1]
    stream.pix_fmt = pixels
    context = stream.codec_context
    if space:
      context.colorspace, context.color_range = space, 1 + full
    if transfer:
      context.color_trc = transfer
    if wide:
      context.color_primaries = wide
    frame = av.VideoFrame.from_ndarray(image, "rgb24")
    if space:
      frame = frame.reformat(
        format=pixels, dst_colorspace=space, dst_color_range=1 + full
      )
    frame.pts, frame.time_base = 0, Fraction(1, 25)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


@pytest.mark.parametrize(
  ("transfer", "name", "white"),
  # Of white paper, 203 candela a square metre (ITU-R BT.2408).
  [
    (16, "PQ", 0.58),
    pytest.param(18, "HLG", 0.75, marks=pytest.mark.slow),
  ],
)
def test_hdr_is_tone_mapped_and_said(tmp_path, transfer, name, white):
  path = tmp_path / "hdr.mkv"
  ramp = np.linspace(0, 255, 64).round().astype(np.uint8)
  image = np.repeat(ramp[None, :, None], 48, 0).repeat(3, -1)
  _write_tagged(path, image, "yuv444p10le", 9, transfer=transfer, wide=9)
  got = _first(path)[24].astype(int)
  assert np.ptp(got, -1).max() <= 3  # Grey stays grey.
  assert (np.diff(got[:, 1]) >= 0).all()
  assert got[0, 1] <= 1 and got[-1, 1] >= 253
  assert 140 < got[round(63 * white), 1] < 235
  info = video_reader.probe(path)
  assert info.remarks == (f"HDR ({name}): tone-mapped to BT.709",)
  assert info.colors == (1, 1)
  assert len(list(video_reader.read_frames(path))) == 1


def test_wide_colours_are_converted_and_said(tmp_path):
  path = tmp_path / "wide.mkv"
  want = np.repeat(np.array(COLOURS, np.uint8), 16, 0)[None].repeat(48, 0)
  _write_tagged(path, want, "yuv444p10le", 9, transfer=14, wide=9)
  black, white, red, green = _first(path)[24, 8::16].astype(int)
  np.testing.assert_allclose(black, 0, atol=3)
  np.testing.assert_allclose(white, 255, atol=3)
  # As codes of the smaller colour space the same red and green lie further out.
  assert red[0] - red[1] > 150 and green[1] - green[0] > 150
  (remark,) = video_reader.probe(path).remarks
  assert "BT.2020" in remark


def test_other_colours_keep_their_tags(tmp_path):
  path = tmp_path / "old.mkv"
  want = np.repeat(np.array(COLOURS, np.uint8), 16, 0)[None].repeat(48, 0)
  _write_tagged(path, want, "yuv420p", 5, transfer=6, wide=5)
  assert video_reader.probe(path).colors == (5, 6)


def test_transparency_is_said(tmp_path):
  path = tmp_path / "alpha.mkv"
  options = dict(codecs=("ffv1", "flac"), pixels="yuva420p", image=_corners)
  synthetic.write_video(path, num_frames=1, **options)
  (remark,) = video_reader.probe(path).remarks
  assert remark.startswith("transparency: left out")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_photograph_is_obeyed(tmp_path, orientation):
  path = tmp_path / "photo.jpg"
  exif = Image.Exif()
  exif[0x0112], exif[0x010F] = orientation, "a camera"
  Image.fromarray(_corners(0, 64, 48)).save(path, exif=exif, quality=95)
  with Image.open(path) as image:
    upright = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
  assert video_reader.probe(path)[2:4] == upright.shape[1::-1]
  near = np.abs(_first(path).astype(int) - upright).max(-1) < 16
  assert near.mean() > 0.85


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
