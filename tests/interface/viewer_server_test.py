"""The server: pictures for each browser's camera, and nothing left behind."""

import contextlib
import socket
import threading
import time
import urllib.request

import numpy as np
import pytest

pytest.importorskip("viser")

from pir_jax.inference import viewer as viewer_lib
from pir_jax.interface import framing, timeline, viewer_server
from pir_jax.types import Cameras, InputError
from tests.interface.bare_browser import BareBrowser
from tests.interface.small_face import MEAN, VIEW, face

EYE = framing.Eye(
  np.asarray(viewer_lib.around(VIEW, np.zeros(1)).pose[0], float), 0.4, 120, 100
)


@contextlib.contextmanager
def serving(**options):
  with viewer_server.ViewerServer(face(), VIEW, port=0, **options) as server:
    yield server


@contextlib.contextmanager
def running(server):
  thread = threading.Thread(target=server.run)
  thread.start()
  try:
    yield
  finally:
    server.stop()
    thread.join()


def test_it_answers_and_its_thread_ends_with_it():
  before = set(threading.enumerate())
  with serving() as server:
    with urllib.request.urlopen(server.url) as answer:
      assert answer.status == 200 and b"<html" in answer.read()
    assert "127.0.0.1" in server.url
    assert not server.watched
  assert set(threading.enumerate()) == before
  with pytest.raises(OSError):
    urllib.request.urlopen(server.url)


def test_a_slider_and_a_kind_make_another_picture():
  with serving() as server:
    first = server.picture(EYE)
    assert first.shape == (100, 120, 3)
    server.controls.set({"jawOpen": 1.0})
    moved = server.picture(EYE)
    assert np.any(first != moved)
    server.controls.set({"jawOpen": 0.23})  # Where it starts.
    np.testing.assert_array_equal(server.picture(EYE), first)
    server.controls.show("depth")
    depth = server.picture(EYE)
    assert np.all(depth[..., 0] == depth[..., 1]) and np.any(depth != first)


def test_browsers_have_cameras_of_their_own_and_leave_nothing():
  with serving() as server, running(server):
    near, far = BareBrowser(server.url), BareBrowser(server.url)
    far.look_from(5.0)
    pictures = [browser.picture_at_rest() for browser in (near, far)]
    lit = [(picture.sum(-1) > 60).mean() for picture in pictures]
    assert lit[0] > 1.5 * lit[1] > 0
    # What one moves, both see.
    server.controls.set({"mouthSmileLeft": 1.4})
    for browser, before in zip((near, far), pictures, strict=True):
      assert np.abs(browser.picture_at_rest() - before).max() > 8
    sent = server.num_pictures
    near.close()
    far.close()
    end = time.monotonic() + 10
    while server.watched and time.monotonic() < end:
      time.sleep(0.02)
    assert not server.watched
    server.controls.set({"mouthSmileLeft": 0.0})
    time.sleep(0.1)
    assert server.num_pictures == sent


def test_it_gets_finer_at_rest_and_stops_there():
  with serving() as server:
    browser = BareBrowser(server.url)
    while not server.watched:
      time.sleep(0.01)
    sizes, end = [], time.monotonic() + 10
    while time.monotonic() < end and len(sizes) < len(face().rungs("image")):
      if server.render_next():
        sizes.append(server.num_pictures)
    # One picture for each rung, and then nothing is due.
    assert sizes == [1, 2, 3]
    time.sleep(2 * viewer_server._STILL)
    assert not server.render_next()
    browser.close()


def test_a_browser_that_sends_nonsense_is_not_rendered_for():
  with serving() as server:
    browser = BareBrowser(server.url)
    browser.look_from(2.7, image_width=10**9)
    browser.look_from(float("nan"))
    while not server.watched:
      time.sleep(0.01)
    time.sleep(0.2)
    assert not server.render_next()
    browser.look_from(2.7)
    end = time.monotonic() + 10
    while not server.render_next() and time.monotonic() < end:
      time.sleep(0.01)
    assert server.num_pictures == 1
    browser.close()


def test_speech_is_shown_at_the_player_s_clock_and_sliders_add_to_it():
  rows = MEAN + np.linspace(0, 1, 50, dtype=np.float32)[:, None]
  speech = timeline.Timeline(rows, np.zeros(32000, np.float32))
  with serving(timeline=speech, title="a.wav") as server:
    controls = server.controls
    np.testing.assert_allclose(controls.expression(), MEAN)
    speech.receive("paused 1.0")
    np.testing.assert_allclose(controls.expression(), rows[25])
    controls.set({"jawOpen": 0.73})
    want = rows[25] + np.float32([0.5, 0, 0, 0])
    np.testing.assert_allclose(controls.expression(), want, atol=1e-6)


def test_a_mesh_is_shown_in_place_of_pictures():
  with serving() as server:
    browser = BareBrowser(server.url)
    server.controls.show("mesh")
    while not server.watched:
      time.sleep(0.01)
    assert server.render_next()
    (message, _) = next(browser.messages("MeshMessage"))
    assert message["name"] == "/face"
    assert not server.picture(EYE).any()
    server.controls.show("image")
    assert server.render_next()
    next(browser.messages("RemoveSceneNodeMessage"))
    browser.close()


def test_training_cameras_are_shown_when_asked_for():
  cameras = viewer_lib.around(VIEW, np.float32([-10, 10]))
  cameras = Cameras(*(np.asarray(x) for x in cameras))
  with serving(cameras=cameras) as server:
    assert len(server._frusta) == 2
    server.picture(EYE)
    assert not any(frustum.visible for frustum in server._frusta)
    server.controls._frusta.value = True
    server.picture(EYE)
    assert all(frustum.visible for frustum in server._frusta)
    for frustum, pose in zip(server._frusta, cameras.pose, strict=True):
      np.testing.assert_allclose(frustum.position, pose[:3, 3], rtol=1e-6)


def test_nobody_can_put_it_on_the_internet():
  with serving() as server:
    assert server._server.request_share_url() is None


def test_a_port_in_use_and_a_strange_host_are_sentences():
  before = set(threading.enumerate())
  with socket.socket() as taken:
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = taken.getsockname()[1]
    with pytest.raises(InputError, match=f"port {port} of 127.0.0.1.*in use"):
      viewer_server.ViewerServer(face(), VIEW, port=port)
  with pytest.raises(InputError, match="another host"):
    viewer_server.ViewerServer(face(), VIEW, host="256.1.1.1", port=0)
  assert set(threading.enumerate()) == before
