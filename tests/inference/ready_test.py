"""A person who was kept starts without what training needs, and is the same."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

import pir_jax
from pir_jax.inference import live, ready, source
from pir_jax.preparation import seen
from pir_jax.runtime import kept
from tests.api_test import folder, make_cameras  # noqa: F401 (a fixture)

SIDE = 32


@pytest.fixture(scope="module")
def model(folder):  # noqa: F811
  return folder / "runs/me"


@pytest.fixture
def keep(tmp_path, monkeypatch):
  monkeypatch.setenv("PIR_JAX_KEEP", str(tmp_path / "keep"))
  return tmp_path / "keep"


def _outputs(person, count=3):
  sound = np.random.default_rng(0).normal(0, 0.1, 3 * 16_000 + 7)
  random = np.random.default_rng(1)
  image = random.uniform(-1, 1, (count, SIDE, SIDE, 3)).astype(np.float32)
  mask = (image[..., :1] > 0).astype(np.float32)
  expression = np.zeros((count, len(person.expression_names)), np.float32)
  stream = person.begin_speech(5, live.STEP)
  streamed = [stream.push(np.float32(sound)), stream.finish()]
  return {
    "predict": person.predict_expression(np.float32(sound)),
    "stream": np.concatenate(streamed),
    "inpaint": person.inpaint(image, mask, make_cameras(count), expression),
    "render": person.render_images(expression, make_cameras(count)),
  }


def test_what_is_kept_is_the_same_person(model, keep, monkeypatch):
  monkeypatch.setenv("PIR_JAX_KEEP", "")
  plain = pir_jax.load(model)
  expected = _outputs(plain)
  monkeypatch.setenv("PIR_JAX_KEEP", str(keep))
  for _ in ("is kept", "was kept"):
    person = pir_jax.load(model)
    for name, value in _outputs(person).items():
      np.testing.assert_allclose(value, expected[name], atol=2e-5, err_msg=name)
    assert person.expression_names == plain.expression_names
    assert person.people[0].sha256 == plain.people[0].sha256
    np.testing.assert_array_equal(person.identity, plain.identity)
    assert (person.prior, person.resolution) == (plain.prior, plain.resolution)
  assert ready.size()[0] == 1


def test_the_frames_of_the_quick_way_are_those_of_the_plain_way(
  model,
  folder,  # noqa: F811
  keep,
  monkeypatch,
):
  """By less than a grey level in the mean."""
  monkeypatch.setattr(seen, "root", lambda: None)
  frames = {}
  for way, place in (("plain", ""), ("quick", str(keep)), ("kept", str(keep))):
    monkeypatch.setenv("PIR_JAX_KEEP", place)
    opened = source.open_source(model, folder / "me.mp4")
    sound = np.random.default_rng(2).normal(0, 0.1, 16_000)
    made = live.moments(opened, [np.float32(sound)])
    frames[way] = np.stack([moment.frame for moment in made]).astype(int)
  for way in ("quick", "kept"):
    assert np.abs(frames[way] - frames["plain"]).mean() < 1


def test_training_s_libraries_are_not_imported(model, keep):
  pir_jax.load(model)
  code = f"""
import sys
from pir_jax.inference import live, opening, reenactor
opening.load({str(model)!r})
heavy = {{"flax", "optax", "orbax", "grain", "tensorstore"}} & set(sys.modules)
assert not heavy, heavy
"""
  environment = {**os.environ, "XLA_FLAGS": os.environ["XLA_FLAGS"]}
  subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_other_networks_are_not_taken_for_these(model, keep):
  before = ready.place_of(model)
  assert ready.place_of(model) == before
  record = model / "inpainting/run.json"
  was = record.stat()
  os.utime(record, ns=(was.st_atime_ns, was.st_mtime_ns + 1))
  after = ready.place_of(model)
  os.utime(record, ns=(was.st_atime_ns, was.st_mtime_ns))
  assert after != before
  assert ready.place_of(model) == before


@pytest.mark.parametrize("name", ["about.json", "start"])
def test_what_is_damaged_is_made_again(model, keep, name):
  pir_jax.load(model)
  place = ready.place_of(model)
  (place / name).write_bytes(b"\x00" * 9)
  person = pir_jax.load(model)
  assert person.predict_expression(np.ones(640, np.float32)).shape[0] == 1
  assert (place / name).stat().st_size > 9


def test_nothing_is_kept_where_nobody_wants_it(model, monkeypatch):
  monkeypatch.setenv("PIR_JAX_KEEP", "")
  assert ready.place_of(model) is None
  pir_jax.load(model)
  assert ready.size() == (0, 0)


def test_a_full_disk_is_no_error(model, keep, monkeypatch):
  def full(self, data):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(pathlib.Path, "write_bytes", full)
  person = pir_jax.load(model)
  assert isinstance(person, pir_jax.Person)
  assert kept.size(ready.root()) == (0, 0)


def test_each_program_is_compiled_once(model, keep):
  pir_jax.load(model)
  person = pir_jax.load(model)
  _outputs(person)
  with jax.log_compiles(False), jax.check_tracer_leaks(False):
    program = person.networks.inpaint.__self__.files["inpaint-4"]
    first = program._compiled
    _outputs(person, 5)
    assert program._compiled is first
