"""A manifest holds for the very bytes that were signed, and no others."""

import shutil

import av
import pytest

from pir_jax.data import synthetic
from pir_jax.marks import keys, manifest
from pir_jax.types import InputError

RECORD = {"inputs": {"video": {"name": "me.mp4", "sha256": "ab" * 32}}}


@pytest.fixture(scope="module")
def signed(tmp_path_factory):
  """A signed video, and its source, under names with spaces and quotes."""
  folder = tmp_path_factory.mktemp("signed")
  source, output = folder / 'the "source".mp4', folder / "an 'output' b.mp4"
  synthetic.write_video(source, num_frames=8)
  synthetic.write_video(output, num_frames=9)
  _sign(output, source)
  return output, source


def _sign(output, source, key=None):
  manifest.sign(
    *(output, source, RECORD, key or keys.own()),
    title=output.name,
    version="1.0",
  )


def test_it_states_who_and_from_what(signed):
  held = manifest.read(signed[0])
  assert held.state == manifest.VALID  # No authority vouches for the user.
  assert held.generator == "pir_jax 1.0" and held.is_ours
  assert held.signer == keys.own().name and held.is_own
  assert held.record == RECORD


def test_it_survives_a_copy_and_the_video_still_plays(signed, tmp_path):
  copy = tmp_path / "copy.mp4"
  shutil.copy(signed[0], copy)
  assert manifest.read(copy).state == manifest.VALID
  with av.open(str(copy)) as container:
    assert sum(1 for _ in container.decode(video=0)) == 9


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_changed_byte_breaks_it(signed, tmp_path, share):
  content = bytearray(signed[0].read_bytes())
  # In the manifest, the index or the pictures.
  content[int(share * len(content))] ^= 1
  changed = tmp_path / "changed.mp4"
  changed.write_bytes(content)
  assert manifest.read(changed).state == manifest.INVALID


def test_a_remuxed_file_holds_no_valid_one(signed, tmp_path):
  remuxed = tmp_path / "remuxed.mp4"
  with av.open(str(signed[0])) as old, av.open(str(remuxed), "w") as new:
    stream = new.add_stream_from_template(old.streams.video[0])
    for packet in old.demux(video=0):
      if packet.dts is not None:
        packet.stream = stream
        new.mux(packet)
  held = manifest.read(remuxed)
  assert held is None or held.state == manifest.INVALID


def test_another_users_key_is_valid_and_not_ones_own(
  signed, tmp_path, monkeypatch
):
  monkeypatch.setenv("PIR_JAX_KEYS", str(tmp_path / "other"))
  for _ in range(2):  # Without a key of one's own, and with one.
    held = manifest.read(signed[0])
    assert held.state == manifest.VALID and not held.is_own
    keys.own()


def test_files_without_one(signed, tmp_path):
  assert manifest.read(signed[1]) is None
  text = tmp_path / "text.mp4"
  text.write_text("no video")
  assert manifest.read(text) is None


def test_a_source_of_another_kind_than_its_name(signed, tmp_path):
  output, source = tmp_path / "out.mp4", tmp_path / "source.mp4"
  shutil.copy(signed[1], output)
  source.write_bytes(b"RIFF" + bytes(2000))
  _sign(output, source)
  assert manifest.read(output).state == manifest.VALID


def test_what_cannot_be_signed_stays_as_it_was(signed, tmp_path):
  output = tmp_path / "out.mp4"
  shutil.copy(signed[1], output)
  before = output.read_bytes()
  broken = keys.own()._replace(private=b"no key")
  with pytest.raises(InputError, match="cannot be signed.*--mark=none"):
    _sign(output, signed[1], broken)
  assert output.read_bytes() == before
  assert list(tmp_path.iterdir()) == [output]
