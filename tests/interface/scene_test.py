"""What viser is asked for: the head's frame, and a sentence without it."""

import sys

import numpy as np
import pytest

pytest.importorskip("viser")

from pir_jax.inference import viewer as viewer_lib
from pir_jax.interface import framing, scene
from pir_jax.types import InputError

VIEW = viewer_lib.in_front()._replace(turn=20.0, nod=10.0)


def test_without_viser_it_names_the_package(monkeypatch):
  monkeypatch.setitem(sys.modules, "viser", None)
  with pytest.raises(InputError, match=r"pip install 'pir_jax\[app\]'"):
    scene.check("127.0.0.1", 0)


def test_browsers_begin_with_the_whole_window_in_sight():
  server = scene.start("127.0.0.1", 0, VIEW)
  try:
    camera = server.initial_camera
    pose = scene.camera_of(VIEW).pose
    np.testing.assert_allclose(camera.position, pose[:3, 3], rtol=1e-6)
    eye = framing.Eye(pose.astype(float), camera.fov, 800, 800)
    left, top, right, bottom = framing.part_with_head(
      eye, framing.window_of(VIEW)
    ).box
    assert 0 < left < right < 1 and 0 < top < bottom < 1
    assert 0.7 < bottom - top < 0.95
  finally:
    scene.stop(server)
