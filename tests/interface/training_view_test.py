"""A run that is watched: its newest average is shown, and nothing is kept."""

import threading
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

pytest.importorskip("viser")

from pir_jax.data import synthetic
from pir_jax.data.dataset import Dataset
from pir_jax.interface import training_view
from pir_jax.runtime import sharding
from pir_jax.stages import base, train_state
from pir_jax.types import InputError
from tests.interface.bare_browser import BareBrowser
from tests.interface.small_face import network


class Stage:
  """Stands for stage 2: a generator, and where its arrays live."""

  name = "triplane"

  def __init__(self, space):
    self._space = space
    self.generator, _ = base.Network.of(network(0, space))
    self._place = sharding.replicated(sharding.make_mesh())

  def state(self, seed):
    parts = nnx.split(network(seed, self._space), nnx.Param, ...)[1:]
    params, buffers = jax.device_put(parts, self._place)
    # The average alone is shown: not the parameters themselves.
    spoilt = jax.tree.map(lambda x: x * jnp.nan, params)
    nets = {"generator": train_state.NetState(spoilt, buffers, ())}
    return train_state.TrainState(jnp.int32(0), nets, {"generator": params})

  def abstract_state(self):
    return jax.eval_shape(lambda: self.state(0))

  def shardings(self):
    return jax.tree.map(lambda _: self._place, self.abstract_state())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  folder = tmp_path_factory.mktemp("data") / "clip"
  synthetic.write_synthetic(folder, num_frames=22)
  return Dataset.open(folder)


def test_the_newest_average_is_shown_and_not_too_often(data, monkeypatch):
  before = set(threading.enumerate())
  stage = Stage(data.space)
  states = [stage.state(seed) for seed in (0, 1)]
  with training_view.shown_at(
    ("127.0.0.1", 0), stage, data, data.space
  ) as watch:
    watch(1, states[0])
    server = watch._server
    assert server.num_pictures == 0  # Nobody looks: no time is spent.
    browser = BareBrowser(watch.url)
    while not server.watched:
      time.sleep(0.01)
    watch(2, states[0])
    first = browser.picture_at_rest()
    assert "Step 2" in server.controls._status.content
    sent = server.num_pictures
    watch(3, states[1])  # At once: not yet due.
    assert server.num_pictures == sent
    watch._due = 0.0
    watch(4, states[1])
    assert np.abs(browser.picture_at_rest() - first).max() > 8
    # The run may overwrite its arrays now.
    for leaf in jax.tree.leaves(states):
      leaf.delete()
    browser.close()
  assert set(threading.enumerate()) == before


def test_a_long_render_is_followed_by_longer_training(data, monkeypatch):
  stage = Stage(data.space)
  view = training_view.TrainingView(stage, data, data.space, port=0)
  try:
    clock = iter([90.0, 100.0, 104.0])
    monkeypatch.setattr(
      training_view, "time", types.SimpleNamespace(monotonic=clock.__next__)
    )
    view._server = types.SimpleNamespace(
      watched=True, render_all=lambda note: None, close=view._server.close
    )
    view(1, stage.state(0))
    assert view._due == 104.0 + training_view._SHARE * 4.0
  finally:
    view.close()


def test_without_a_place_nothing_is_served(data):
  with training_view.shown_at(None, None, data, data.space) as watch:
    assert watch is None


def test_only_a_run_with_a_whole_face_is_shown(data):
  stage = Stage(data.space)
  training_view.check(stage)
  stage.name = "expression"
  with pytest.raises(InputError, match="stage 2, and this is expression"):
    training_view.check(stage)
  stage.name = "triplane"
  # Split over processes: no array can be read on one.
  elsewhere = types.SimpleNamespace(
    is_fully_replicated=False, is_fully_addressable=False
  )
  stage.shardings = lambda: types.SimpleNamespace(ema=[elsewhere])
  with pytest.raises(InputError, match="sharding.fsdp"):
    training_view.check(stage)


def test_arrays_come_from_one_device_of_this_process():
  mesh = sharding.make_mesh(fsdp=2)
  values = np.arange(8.0)
  for spec in (PartitionSpec(), PartitionSpec("fsdp")):
    array = jax.device_put(values, NamedSharding(mesh, spec))
    here = training_view._here(array)
    assert len(here.devices()) == 1
    np.testing.assert_array_equal(here, values)
