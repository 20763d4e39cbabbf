"""The panel: every expression has a slider, and reset undoes all."""

import types

import numpy as np
import pytest

pytest.importorskip("viser")

from pir_jax.interface import controls as controls_lib
from pir_jax.interface import scene
from tests.interface.small_face import MEAN, SPACE, VIEW


@pytest.fixture(scope="module")
def server():
  made = scene.start("127.0.0.1", 0, VIEW)
  yield made
  scene.stop(made)


@pytest.fixture
def changes():
  return []


@pytest.fixture
def panel(server, changes):
  server.gui.reset()
  return controls_lib.Controls(
    server,
    SPACE,
    MEAN,
    lambda: changes.append(1),
    timeline=None,
    title="",
    frusta=False,
  )


def run(coroutine):
  with pytest.raises(StopIteration):
    coroutine.send(None)


def event(value):
  return types.SimpleNamespace(target=types.SimpleNamespace(value=value))


def test_sliders_start_at_the_mean_exactly(panel):
  np.testing.assert_array_equal(panel.expression(), MEAN)


def test_each_name_moves_its_own_coefficient(panel, changes):
  for index, name in enumerate(SPACE.expression_names):
    before = panel.expression()
    panel.set({name: 1.1})
    moved = panel.expression() != before
    assert moved.tolist() == [i == index for i in range(4)]
  assert len(changes) >= 4
  with pytest.raises(KeyError):
    panel.set({"jawopen": 1.0})


def test_presets_begin_at_the_mean_and_reset_returns_to_it(panel):
  panel.set({"cheekPuff": 1.0})
  run(panel._on_preset(event("smile")))
  want = MEAN.copy()
  want[1:3] = 0.8
  np.testing.assert_allclose(panel.expression(), want, atol=0.006)
  run(panel._on_preset(event("no such")))
  np.testing.assert_array_equal(panel.expression(), MEAN)
  run(panel._on_preset(event("open")))
  assert panel.expression()[0] > 0.7
  run(panel._on_reset(event(None)))
  np.testing.assert_array_equal(panel.expression(), MEAN)


def test_what_browsers_send_is_not_trusted(panel):
  panel._sliders["jawOpen"]._impl.value = float("nan")
  panel._kind._impl.value = "something"
  assert np.isfinite(panel.expression()).all()
  assert panel.kind == "image"


def test_it_says_that_the_face_is_generated(panel):
  panel.report("An image.")
  assert "AI-generated" in panel._status.content
  assert controls_lib._plain("a`b\nc") == "`a'b c`"
