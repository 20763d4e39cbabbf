"""A card stands beside its output, and replaces no other file."""

import json

import pytest

from pir_jax.marks import run_card
from pir_jax.types import InputError


def _write(output):
  with run_card.written(output) as hidden:
    run_card.write(hidden, output, output.name, {"settings": {"fill": "hold"}})


def test_it_stands_beside_the_output_and_names_its_content(tmp_path):
  output = tmp_path / "a 'b'.mp4"
  output.write_bytes(b"video")
  run_card.check(output)
  _write(output)
  card = run_card.read(tmp_path / "a 'b'.json")
  assert card["output"]["name"] == output.name
  assert len(card["output"]["sha256"]) == 64
  assert card["settings"] == {"fill": "hold"}
  assert card["versions"]["numpy"]
  run_card.check(output)  # A card may be replaced.


def test_the_card_of_another_output_stays_as_long_as_that_is_there(tmp_path):
  first, second = tmp_path / "out.mp4", tmp_path / "out.raw"
  first.write_bytes(b"video")
  _write(first)
  with pytest.raises(InputError, match="would replace it"):
    run_card.check(second)
  first.unlink()
  run_card.check(second)


@pytest.mark.parametrize("content", [b"{}", b"[1]", b"\xff", b'{"kind": "a"}'])
def test_another_file_is_not_replaced(tmp_path, content):
  (tmp_path / "out.json").write_bytes(content)
  with pytest.raises(InputError, match=r"out\.json is another file"):
    run_card.check(tmp_path / "out.mp4")


def test_a_failure_leaves_nothing(tmp_path):
  def fail():
    with run_card.written(tmp_path / "out.mp4") as hidden:
      hidden.write_text(json.dumps({"half": 1}))
      raise RuntimeError

  with pytest.raises(RuntimeError):
    fail()
  assert not list(tmp_path.iterdir())
