"""A real browser shows the face, moves its mouth, and plays speech."""

import io
import shutil
import threading
import time
from urllib.parse import urlparse

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("viser")

from pir_jax.data import synthetic
from pir_jax.inference import viewer as viewer_lib
from pir_jax.interface import face_view, timeline, viewer_server
from pir_jax.runs.run import BASE_FOLDER, generator_of, open_run, place_of

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
  pytest.mark.slow,
  pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]
# Where the windows of the base's videos are, about.
VIEW = viewer_lib.Viewpoint(
  0.0,
  -9.0,
  2.7,
  np.float32([[3.7, 0, 0.49], [0, 3.7, 0.39], [0, 0, 1]]),
)
SIDE = 800  # Of the canvas; its panel is beside it.
MOUTH, FOREHEAD = np.s_[400:640, 240:560], np.s_[120:240, 240:560]


@pytest.fixture(scope="module")
def server():
  """Shows the base's mean face, with two seconds of a sound and a jaw."""
  run = open_run(place_of(BASE_FOLDER, "triplane"))
  space = run.space
  mean = np.asarray(space.expression_mean)
  identity = np.zeros(space.identity_size, np.float32)
  face = face_view.FaceView(generator_of(run), space, identity, mean)
  rows = np.repeat(mean[None], 50, 0)
  jaw = space.expression_names.index("jawOpen")
  rows[:, jaw] = 0.5 - 0.5 * np.cos(np.arange(50) / 4)
  speech = timeline.Timeline(rows, synthetic.speech_like(2.0, 16000))
  with viewer_server.ViewerServer(
    face, VIEW, port=0, timeline=speech, title="two seconds.wav"
  ) as made:
    made.speech = speech
    made.warm_up(VIEW)
    thread = threading.Thread(target=made.run)
    thread.start()
    yield made
    made.stop()
    thread.join()


@pytest.fixture
def page(server):
  sync_api = pytest.importorskip("playwright.sync_api")
  with sync_api.sync_playwright() as player:
    browser = player.chromium.launch(
      executable_path=CHROMIUM,
      args=[
        "--no-sandbox",
        "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader",
      ],
    )
    opened = browser.new_page(viewport={"width": SIDE + 344, "height": SIDE})
    opened.requested = set()
    opened.on("request", lambda r: opened.requested.add(r.url))
    opened.goto(server.url)
    wait_for(lambda: server.num_pictures and server.watched)
    yield opened
    browser.close()
  wait_for(lambda: not server.watched)


def wait_for(condition, seconds=30):
  end = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < end
    time.sleep(0.05)


def canvas(page, server):
  """What the user sees of the scene, once nothing gets finer any more."""
  sent = -1
  while sent != server.num_pictures:
    sent = server.num_pictures
    page.wait_for_timeout(2000)
  picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
  return np.asarray(picture).astype(int)[:, :SIDE]


def difference(one, other, part):
  return np.abs(one[part] - other[part]).mean()


def test_a_slider_opens_the_mouth_and_reset_closes_it(page, server):
  page.locator(".mantine-Notification-closeButton").first.click()
  rest = canvas(page, server)
  assert rest[MOUTH].mean() > 40  # A face, and no panel over it.
  row = page.locator("label", has_text="open").first.locator(
    "xpath=ancestor::*[.//input][1]"
  )
  box = row.locator("input").last
  box.fill("1.2")
  box.press("Enter")
  opened = canvas(page, server)
  # The base ties the whole face to the jaw; still the mouth moves most.
  mouth, forehead = (
    difference(rest, opened, part) for part in (MOUTH, FOREHEAD)
  )
  assert mouth > 10 and mouth > 1.1 * forehead
  page.get_by_role("button", name="Reset to the mean").click()
  again = difference(rest, canvas(page, server), MOUTH)
  assert again < 1
  # All of it comes from here.
  places = {urlparse(url).hostname for url in page.requested} - {None}
  assert places <= {"127.0.0.1"}


def test_the_player_plays_and_the_face_follows_its_clock(page, server):
  player = page.locator("#pir-speech")
  # Only the player's own buttons are seen, not the field under them.
  assert not page.get_by_text(timeline.FIELD).is_visible()
  box = player.bounding_box()
  page.mouse.click(box["x"] + 27, box["y"] + box["height"] / 2)
  wait_for(lambda: server.speech.playing)
  before = server.num_pictures
  wait_for(lambda: player.evaluate("a => a.currentTime") > 0.5)
  wait_for(lambda: player.evaluate("a => a.ended"))
  wait_for(lambda: not server.speech.playing)
  # How many depends on what the tests are compiled for.
  assert server.num_pictures >= before + 2
  player.evaluate("a => { a.currentTime = 0.5; }")
  wait_for(lambda: server.speech.at() is not None)
  np.testing.assert_array_equal(
    server.speech.at(), server.speech.expression[12]
  )
