"""A browser opens the page, uploads, trains, speaks and downloads."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import urllib.parse

import av
import pytest

from pir_jax import assets
from pir_jax.media import video_writer
from pir_jax.preparation import packaged_clip

ROOT = pathlib.Path(__file__).parents[2]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
MINUTES = 60_000  # Milliseconds.
NAME = "<b onmouseover=alert(1)>Ann</b>"


def chromium():
  """Returns the path of a browser that is installed, or skips the test."""
  found = next(filter(None, map(shutil.which, BROWSERS)), None)
  if found is None:
    pytest.skip("no Chromium is installed")
  return found


@pytest.fixture
def address(tmp_path):
  """Serves the page at a free port."""
  command = [sys.executable, "-m", "pir_jax", "app", "--port=0"]
  server = subprocess.Popen(
    [*command, f"--folder={tmp_path / 'app'}"],
    cwd=ROOT,
    env={**os.environ, "XLA_FLAGS": ""},
    stdout=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  yield server.stdout.readline().removeprefix("Open ").strip()
  server.send_signal(signal.SIGINT)
  assert server.wait(120) == 0
  server.stdout.close()


@pytest.mark.slow
def test_a_browser_goes_the_whole_way(address, tmp_path):
  playwright = pytest.importorskip("playwright.sync_api")
  with playwright.sync_playwright() as engine:
    browser = engine.chromium.launch(
      executable_path=chromium(), args=["--no-sandbox"]
    )
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    hosts, dialogs = set(), []
    page.on(
      "request",
      lambda request: hosts.add(urllib.parse.urlsplit(request.url).netloc),
    )
    page.on("dialog", lambda dialog: dialogs.append(dialog))
    page.goto(address)
    page.get_by_text("Begin with a video").wait_for()

    page.get_by_label("Name").fill(NAME)
    files = page.locator("input[type=file]")
    files.first.set_input_files(assets.fetch("demo_video"))
    page.get_by_text(f"Preparing {NAME}").first.wait_for()
    page.reload()  # The job goes on, and is shown again.
    page.get_by_text(f"Preparing {NAME}").first.wait_for()
    page.get_by_text("The video is").wait_for(timeout=10 * MINUTES)
    page.get_by_alt_text("Frames, with landmarks").wait_for()

    page.get_by_role("tab", name="Train").click()
    train = page.get_by_role("button", name="Train")
    train.click(timeout=5 * MINUTES)
    page.get_by_text("Training needs consent").wait_for()
    page.get_by_label("This is me").check()
    page.get_by_label("Steps of each").fill("20")
    train.click()
    done = page.get_by_text(f"Training {NAME}: done")
    done.wait_for(timeout=25 * MINUTES)
    assert page.locator("svg[aria-label^=Loss]").count() == 3
    page.get_by_alt_text("Previews of inpainting").wait_for()

    page.get_by_role("tab", name="Speak").click()
    files.nth(1).set_input_files(packaged_clip.voice(tmp_path))
    page.get_by_role("button", name="Speak").click(timeout=MINUTES)
    link = page.get_by_text("Download this video")
    link.wait_for(timeout=15 * MINUTES)
    with page.expect_download() as download:
      link.click()
    download.value.save_as(tmp_path / "new.mp4")
    browser.close()
  with av.open(str(tmp_path / "new.mp4")) as container:
    assert container.metadata["comment"] == video_writer.COMMENT
    assert container.streams.video[0].frames > 100
  assert hosts - {""} == {urllib.parse.urlsplit(address).netloc}
  assert not dialogs
