"""Checkpoints: whole or not there, on any mesh; no damage goes unseen."""

import json
import os
import shutil

import chex
import jax
import jax.numpy as jnp
import pytest

from pir_jax.runtime import checkpoint, sharding
from pir_jax.types import InputError


class Place:
  """The least that is an iterator with a place."""

  def __init__(self, at=0):
    self.at = at

  def get_state(self):
    return {"next_index": self.at}

  def set_state(self, state):
    self.at = state["next_index"]


def make(step, side=256):
  key = jax.random.fold_in(jax.random.key(0), step)
  return {
    "step": jnp.int32(step),
    "net": {"kernel": jax.random.normal(key, (side, side)), "none": {}},
  }


def on(fsdp, num_devices, side=256):
  """The state's abstract form on a mesh."""
  mesh = sharding.make_mesh(fsdp, jax.devices()[:num_devices])
  shapes = jax.eval_shape(lambda: make(0, side))
  return checkpoint.abstract(shapes, sharding.state_shardings(mesh, shapes))


def save(workdir, steps, metrics=None, **options):
  checkpoints = checkpoint.Checkpoints(workdir, **options)
  for step in steps:
    scores = metrics and metrics.get(step)
    checkpoints.save(step, make(step), Place(10 * step), scores)
  checkpoints.wait()
  return checkpoints


def newest(workdir):
  checkpoints = checkpoint.Checkpoints(workdir)
  place = Place()
  try:
    step, state = checkpoints.restore_newest(on(1, 1), place)
  finally:
    checkpoints.close()
  chex.assert_trees_all_equal(state, make(step))
  assert place.at == 10 * step
  return step


def test_the_newest_are_kept_and_the_best(tmp_path):
  scores = {1: {"psnr": 9.0}, 2: {"psnr": 20.0}, 3: {"psnr": 8.0}}
  checkpoints = save(tmp_path, range(1, 7), scores, best="psnr")
  assert checkpoints.steps() == [2, 5, 6]
  assert checkpoints.best() == 2
  checkpoints.close()
  again = checkpoint.Checkpoints(tmp_path, best="-psnr")
  again.save(7, make(7), Place(70), {"psnr": 7.0})
  again.close()
  assert again.steps() == [6, 7]
  assert again.best() == 7
  assert sorted(os.listdir(tmp_path / "checkpoints")) == ["6", "7"]


def test_a_metric_that_is_not_there_is_refused_by_name(tmp_path):
  with pytest.raises(InputError, match="'fid'.*choose from lpips, psnr"):
    save(tmp_path, [1], {1: {"lpips": 1.0, "psnr": 2.0}}, best="-fid")


def test_restored_onto_other_meshes(tmp_path):
  checkpoints = checkpoint.Checkpoints(tmp_path)
  shardings = jax.tree.map(lambda x: x.sharding, on(4, 8))
  checkpoints.save(1, jax.device_put(make(1), shardings), Place(10))
  checkpoints.close()
  for fsdp, num_devices in ((1, 1), (8, 8), (2, 4)):
    again = checkpoint.Checkpoints(tmp_path)
    step, state = again.restore_newest(on(fsdp, num_devices))
    again.close()
    chex.assert_trees_all_equal(state, make(step))
    kernel = state["net"]["kernel"]
    assert kernel.addressable_shards[0].data.size * fsdp == kernel.size


def files(workdir, step):
  folder = workdir / "checkpoints" / str(step)
  return sorted(
    str(path.relative_to(workdir))
    for path in folder.rglob("*")
    # Orbax's own notes, which it can do without.
    if path.is_file()
    and path.name not in ("_CHECKPOINT_METADATA",)
    and path != folder / "commit_success.txt"
  )


def cut(path):
  os.truncate(path, path.stat().st_size // 2)


def empty(path):
  os.truncate(path, 0)


def flip(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 2] ^= 1
  path.write_bytes(content)


def test_damage_to_any_file_is_seen_and_the_older_one_taken(tmp_path, capfd):
  whole = tmp_path / "whole"
  save(whole, [1, 2]).close()
  names = files(whole, 2)
  assert len(names) > 10
  harms = (cut, empty, flip, lambda path: path.unlink())
  for number, name in enumerate(names):
    workdir = tmp_path / str(number)
    shutil.copytree(whole, workdir)
    harms[number % len(harms)](workdir / name)
    assert newest(workdir) == 1, name
    assert f"checkpoint 2 of {workdir} is damaged" in capfd.readouterr().err
    (aside,) = (workdir / "damaged").iterdir()
    assert aside.name.startswith("2-")


@pytest.mark.parametrize("harm", [cut, empty, flip])
def test_every_harm_to_the_arrays_is_seen(tmp_path, harm):
  save(tmp_path, [1, 2]).close()
  folder = tmp_path / "checkpoints/2/state"
  harm(max(folder.rglob("d/*"), key=lambda path: path.stat().st_size))
  assert newest(tmp_path) == 1


def test_the_step_that_was_damaged_is_saved_again(tmp_path):
  save(tmp_path, [1, 2]).close()
  cut(tmp_path / "checkpoints/2/data/iterator.json")
  save(tmp_path, [2]).close()
  assert newest(tmp_path) == 2


def test_where_all_are_damaged_nothing_begins_anew(tmp_path):
  save(tmp_path, [1, 2]).close()
  for step in (1, 2):
    empty(tmp_path / f"checkpoints/{step}/about/about.json")
  for _ in range(2):  # Also when they have been moved away.
    with pytest.raises(InputError, match="every checkpoint of .* is damaged"):
      newest(tmp_path)


def test_what_is_only_read_is_not_moved(tmp_path, capfd):
  save(tmp_path, [1, 2]).close()
  cut(tmp_path / "checkpoints/2/files.json")
  checkpoints = checkpoint.Checkpoints(tmp_path, read_only=True)
  assert checkpoints.restore_newest(on(1, 1))[0] == 1
  checkpoints.close()
  assert "ignored" in capfd.readouterr().err
  assert (tmp_path / "checkpoints/2").exists()
  assert not (tmp_path / "damaged").exists()


def test_nothing_saved_is_nothing_found(tmp_path):
  for read_only in (True, False):
    checkpoints = checkpoint.Checkpoints(tmp_path / "new", read_only=read_only)
    assert checkpoints.restore_newest(on(1, 1)) is None
    checkpoints.close()


def test_an_unfinished_save_is_cleared_away(tmp_path):
  save(tmp_path, [1]).close()
  folder = tmp_path / "checkpoints"
  shutil.copytree(folder / "1", folder / "2.orbax-checkpoint-tmp")
  assert newest(tmp_path) == 1
  assert os.listdir(folder) == ["1"]


def test_arrays_of_other_shapes_are_refused_by_name(tmp_path):
  checkpoints = save(tmp_path, [1])
  with pytest.raises(InputError, match=r"net/kernel is \(256, 256\) in it and"):
    checkpoints.restore_newest(on(1, 1, side=128))
  checkpoints.close()


def test_a_new_run_takes_over_what_another_has(tmp_path):
  save(tmp_path / "old", [1, 2]).close()
  new = tmp_path / "new"
  checkpoint.adopt(new, tmp_path / "old", on(1, 1))
  assert newest(new) == 2
  save(new, [3]).close()
  checkpoint.adopt(new, tmp_path / "old", on(1, 1))  # It has begun: no more.
  assert newest(new) == 3
  with pytest.raises(InputError, match="of other networks"):
    checkpoint.adopt(tmp_path / "other", new, on(1, 1, side=64))
  with pytest.raises(InputError, match="no checkpoint"):
    checkpoint.adopt(tmp_path / "other", tmp_path / "empty", on(1, 1))


def test_a_checkpoint_says_what_it_is_of(tmp_path):
  record = {"stage": "line", "config": {"seed": 3}, "code": "abc"}
  checkpoint.write_record(tmp_path, record)
  save(tmp_path, [4]).close()
  text = (tmp_path / "checkpoints/4/about/about.json").read_text()
  assert json.loads(text) == {"step": 4, "versions": None, **record}
