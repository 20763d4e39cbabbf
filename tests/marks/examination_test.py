"""An examination states which marks are there, and no more than that."""

import json
import shutil

import pytest

from pir_jax.data import synthetic
from pir_jax.marks import examination, keys, manifest, run_card
from pir_jax.types import InputError


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
  path = tmp_path_factory.mktemp("plain") / "plain.mp4"
  synthetic.write_video(path, num_frames=12)
  return path


@pytest.fixture
def signed(plain, tmp_path):
  path = tmp_path / "signed.mp4"
  shutil.copy(plain, path)
  record = {"inputs": {"video": {"name": "me.mp4", "sha256": "ab"}}}
  manifest.sign(path, plain, record, keys.own(), title="s", version="1.0")
  return path


def test_marks_are_named_with_signer_and_source(signed):
  result = examination.examine(signed)
  text = result.text()
  assert result.is_marked
  assert "valid, not trusted" in text and keys.own().name in text
  assert "your own key" in text and "from video me.mp4 ab" in text
  assert "not detected" in text
  assert json.loads(result.json())["manifest"]["state"] == manifest.VALID


def test_a_changed_file_is_invalid(signed):
  content = bytearray(signed.read_bytes())
  content[-10] ^= 1
  signed.write_bytes(content)
  assert "invalid: the file was changed" in examination.examine(signed).text()


def test_a_card_of_the_file_as_it_was_is_no_card_of_it(signed):
  with run_card.written(signed) as hidden:
    run_card.write(hidden, signed, signed.name, {})
  assert "of this very file" in examination.examine(signed).text()
  with signed.open("ab") as file:
    file.write(b"x")
  result = examination.examine(signed)
  assert "not of this file as it is" in result.text() and result.card is None


def test_without_marks_it_proves_nothing(plain, tmp_path):
  # Synthetic videos bear the comment of all that is written here.
  bare = tmp_path / "bare.mp4"
  bare.write_bytes(plain.read_bytes().replace(b"AI-generated", b"XX-generated"))
  text = examination.examine(bare).text()
  assert "No marks of pir_jax" in text and "prove nothing" in text


def test_a_manifest_may_state_anything(plain, tmp_path):
  path = tmp_path / "odd.mp4"
  odd = {"video": {"name": "\x1b[2J\n" + 999 * "x", "sha256": 7}}
  for inputs in (3, {"video": "me"}, {"video": None}, odd):
    shutil.copy(plain, path)
    manifest.sign(
      *(path, plain, {"inputs": inputs}, keys.own()), title="o", version="1"
    )
    text = examination.examine(path).text()
    assert "valid, not trusted" in text
    assert "\x1b" not in text and max(map(len, text.splitlines())) <= 400


@pytest.mark.parametrize("content", [b"no video", b""])
def test_what_is_no_video_is_a_sentence(tmp_path, content):
  path = tmp_path / "x.mp4"
  path.write_bytes(content)
  with pytest.raises(InputError):
    examination.examine(path)
