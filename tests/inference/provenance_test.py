"""Every output is signed and has its card, or there is no output."""

import io

import av
import numpy as np
import pytest
import soundfile

from pir_jax.inference import live_output, ready, reenactor
from pir_jax.inference import source as source_lib
from pir_jax.marks import examination, keys, manifest, run_card, watermark
from pir_jax.marks.marking import Marking
from pir_jax.media import video_reader
from pir_jax.types import SAMPLE_RATE, InputError
from tests.inference.live_test import (  # noqa: F401 (fixtures)
  _chunks,
  _sound,
  clip,
  colored,
  source,
)


@pytest.fixture
def speech(tmp_path):
  path = tmp_path / "speech.wav"
  soundfile.write(path, _sound(0.5), SAMPLE_RATE)
  return path


def _write(source, speech, output):  # noqa: F811
  return reenactor.write_long(source, _sound(0.5), speech, output, way="loop")


def test_a_file_is_signed_and_its_card_names_what_it_is_of(
  colored,  # noqa: F811
  speech,
  tmp_path,
):
  output = tmp_path / "a 'b'.mp4"
  _write(colored, speech, output)
  result = examination.examine(output)
  assert result.manifest.state == manifest.VALID and result.manifest.is_own
  inputs = result.manifest.record["inputs"]
  assert inputs["video"]["sha256"] == colored.tracked.video.sha256
  assert inputs["audio"]["sha256"] == video_reader.digest(speech)
  card = result.card
  assert card["inputs"] == inputs and card["settings"]["way"] == "loop"
  assert card["figures"]["frames"] == 12
  assert card["figures"]["seconds"]["encode"] > 0
  assert card["marks"]["signed by"] == keys.own().name
  with av.open(str(output)) as container:
    assert sum(1 for _ in container.decode(video=0)) == 12


def test_without_marks_the_card_states_what_is_lost(
  colored,  # noqa: F811
  speech,
  tmp_path,
):
  output = tmp_path / "out.mp4"
  plain = colored._replace(marking=Marking("none"))
  _write(plain, speech, output)
  result = examination.examine(output)
  assert result.manifest is None and result.comment
  marks = result.card["marks"]
  assert marks["mark"] == "none" and marks["watermark"] is None
  assert "no signed manifest" in marks["without"]


def test_the_card_states_that_a_small_face_bears_no_watermark(
  colored,  # noqa: F811
  speech,
  tmp_path,
):
  track = colored.tracked.track
  small = track._replace(window=track.window * np.float32([1, 1, 0.3]))
  for each in (
    colored,
    colored._replace(tracked=colored.tracked._replace(track=small)),
  ):
    output = tmp_path / "out.mp4"
    _write(each, speech, output)
    card = run_card.read(tmp_path / "out.json")
    sides = each.tracked.track.window[:, 2] * track.mask_window[:, 2]
    bears = bool(np.median(sides) >= watermark.SMALLEST)
    assert (card["marks"]["watermark"] is not None) == bears
  assert not bears


def test_a_signature_that_fails_is_no_output(
  colored,  # noqa: F811
  speech,
  tmp_path,
  monkeypatch,
):
  def fail():
    raise InputError("no key")

  monkeypatch.setattr(keys, "own", fail)
  before = set(tmp_path.iterdir())
  with pytest.raises(InputError, match="no key"):
    _write(colored, speech, tmp_path / "out.mp4")
  assert set(tmp_path.iterdir()) == before


def test_another_file_of_the_cards_name_is_refused_before_the_work(
  speech, tmp_path
):
  (tmp_path / "out.json").write_text("{}")
  with pytest.raises(InputError, match=r"out\.json is another file"):
    reenactor.reenact("nobody", "no.mp4", speech, tmp_path / "out.mp4")


def _live(source, output, monkeypatch, **options):  # noqa: F811
  marking = Marking(options.get("mark", "all"))
  monkeypatch.setattr(
    *(source_lib, "open_source"),
    lambda *args, **given: source._replace(marking=marking),
  )
  live_output.write(
    *("me", "me.mp4", _chunks(_sound(0.5), 640), str(output)), **options
  )


@pytest.mark.parametrize("kind", ["mp4", "raw"])
def test_a_live_file_has_what_it_can_bear(
  colored,  # noqa: F811
  tmp_path,
  monkeypatch,
  kind,
):
  output = tmp_path / f"out.{kind}"
  _live(colored, output, monkeypatch, kind=kind)
  card = run_card.read(tmp_path / "out.json")
  assert card["inputs"]["audio"] == {"name": "standard input"}
  assert card["figures"]["frames"] == 12
  assert card["output"]["sha256"] == video_reader.digest(output)
  if kind == "mp4":
    assert manifest.read(output).state == manifest.VALID
    with av.open(str(output)) as container:
      assert sum(1 for _ in container.decode(video=0)) == 12


def test_a_pipe_is_a_stream_and_standard_error_states_what_it_lacks(
  colored,  # noqa: F811
  monkeypatch,
  capfdbinary,
):
  _live(colored, "-", monkeypatch)
  output, errors = capfdbinary.readouterr()
  with av.open(io.BytesIO(output)) as container:
    assert sum(1 for _ in container.decode(video=0)) == 12
  assert b"no signed manifest" in errors


def test_the_label_is_in_every_frame(
  colored,  # noqa: F811
  speech,
  tmp_path,
):
  frames = []
  for visible in (False, True):
    output = tmp_path / f"{visible}.mp4"
    marking = Marking("none", visible)
    _write(colored._replace(marking=marking), speech, output)
    frames.append([x for _, x in video_reader.read_frames(output)])
  for plain, labelled in zip(*frames, strict=True):
    corner = np.s_[-10:, -20:]
    assert np.abs(np.int16(plain[corner]) - labelled[corner]).max() > 30


def test_the_digest_is_of_the_newest_networks(tmp_path):
  for stage in ("expression", "triplane", "inpainting"):
    for step in (3, 12):
      folder = tmp_path / stage / "checkpoints" / str(step)
      folder.mkdir(parents=True)
      (folder / "files.json").write_text(f"{stage} {step}")
    (tmp_path / stage / "run.json").write_text("{}")
  first = ready.digest(tmp_path)
  for name, same in (("3", True), ("12", False)):
    place = tmp_path / "triplane" / "checkpoints" / name / "files.json"
    place.write_text("other")
    assert (ready.digest(tmp_path) == first) == same
  (tmp_path / "triplane.safetensors").write_bytes(b"exported")
  assert ready.digest(tmp_path) != first
