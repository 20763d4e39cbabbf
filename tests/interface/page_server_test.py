"""The whole page: it answers, and refuses what could harm.

Requests are those of the page's own scripts; jobs are quick programs.
"""

import concurrent.futures
import json
import pathlib
import secrets
import sys
import threading
import urllib.request

import pytest

pytest.importorskip("gradio")

import gradio as gr
from starlette import testclient

from pir_jax.data import synthetic
from pir_jax.interface import actions, jobs, page, page_server, views
from pir_jax.types import InputError

OWN = "http://127.0.0.1:7860"
MP4 = b"\0\0\0\x20ftypisom" + b"\0" * 100
SECRET = b"\0\0\0\x20ftypisom a secret"
LIMIT = 200_000
SCRIPT = "<img src=x onerror=alert(1)>"


def quick(command):
  """A program that ends as `prepare` does with a damaged video."""
  code = "raise SystemExit('prepare: clip.mp4 is damaged: copy it again.')"
  if command[0] != "prepare":
    code = "pass"
  return [sys.executable, "-S", "-c", code]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return tmp_path_factory.mktemp("page") / "app"


@pytest.fixture(scope="module")
def desk(folder):
  desk = actions.Actions(
    folder, pathlib.Path("experiments"), LIMIT, to_line=quick
  )
  yield desk
  desk.close()


@pytest.fixture(scope="module")
def client(desk):
  with pytest.MonkeyPatch.context() as patch:
    for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE"):
      patch.setenv(name, "")  # Restored afterwards.
    app = page_server.application(desk, [])
    with testclient.TestClient(app, base_url=OWN) as client:
      yield client


@pytest.fixture(scope="module")
def config(client):
  return client.get("/config").json()


class Browser:
  """Sends what the page's scripts send."""

  def __init__(self, client, config):
    self.client, self.config = client, config
    self.session = secrets.token_hex(5)

  def upload(self, content, name="movie.mp4"):
    """Uploads a file; returns what a file component then holds."""
    files = {"files": (name, content, "video/mp4")}
    answer = self.client.post("/gradio_api/upload", files=files)
    assert answer.status_code == 200, answer.text
    return {
      "path": answer.json()[0],
      "orig_name": name,
      "meta": {"_type": "gradio.FileData"},
    }

  def event(self, label, name):
    """Returns the number of a component's event."""
    (id,) = (
      part["id"]
      for part in self.config["components"]
      if part["type"] != "tabitem"
      and label in (part["props"].get("label"), part["props"].get("value"))
    )
    return next(
      event["id"]
      for event in self.config["dependencies"]
      if [id, name] in [list(target) for target in event["targets"]]
    )

  def send(self, label, name, *values):
    """Triggers an event; returns whether it succeeded, and its output."""
    body = {
      "fn_index": self.event(label, name),
      "data": values,
      "session_hash": self.session,
    }
    answer = self.client.post("/gradio_api/queue/join", json=body)
    assert answer.status_code == 200, answer.text
    stream = self.client.get(
      "/gradio_api/queue/data", params={"session_hash": self.session}
    )
    for line in stream.text.splitlines():
      message = json.loads(line.removeprefix("data: ") or "{}") if line else {}
      if message.get("msg") == "process_completed":
        return message["success"], message["output"]
    raise AssertionError(stream.text)

  def prepare(self, upload, name=""):
    return self.send("Video of the person", "upload", name, upload)


@pytest.fixture
def browser(client, config):
  return Browser(client, config)


@pytest.fixture
def secret(folder):
  """A file beside the page's folder, of an allowed kind."""
  path = folder.parent / "secret.mp4"
  path.write_bytes(SECRET)
  return path


def newest(desk):
  """Returns the newest person, and their last job when it has ended."""
  person = desk.people.all()[0]
  job = desk.queue.jobs(person.id)[-1]
  return person, desk.queue.wait(job.name, 10.0)


def test_a_video_is_taken_prepared_and_its_upload_removed(browser, desk):
  succeeded, _ = browser.prepare(browser.upload(MP4), "Ann")
  assert succeeded
  person, _ = newest(desk)
  assert person.name == "Ann"
  assert person.clip.read_bytes() == MP4
  assert not list(desk.uploads.folder.rglob("*.mp4"))


def test_the_page_asks_no_other_host_for_anything(client):
  text = client.get("/").text
  assert "googleapis" not in text + client.get("/theme.css").text
  # What the scripts would load besides is refused by the browser.
  assert (
    "default-src 'self'" in client.get("/").headers["content-security-policy"]
  )


def test_a_path_of_somebody_else_is_not_read(browser, desk, secret):
  before = len(desk.people.all())
  for path in (secret, f"{desk.uploads.folder}/../../secret.mp4"):
    bad = {"path": str(path), "meta": {"_type": "gradio.FileData"}}
    event = browser.event("Video of the person", "upload")
    body = {"fn_index": event, "data": ["", bad], "session_hash": "x"}
    answer = browser.client.post("/gradio_api/queue/join", json=body)
    assert answer.status_code == 403
  assert len(desk.people.all()) == before
  assert secret.read_bytes() == SECRET
  copies = [p for p in desk.people.folder.parent.rglob("*") if p.is_file()]
  assert not [path for path in copies if path.read_bytes() == SECRET]


def test_a_path_of_somebody_else_is_not_served(client, desk, secret):
  person = desk.people.add("Bob")
  (person.folder / "clip.mp4").write_bytes(SECRET)
  id = person.id
  for path in (
    f"/gradio_api/file={secret}",
    "/gradio_api/file=/etc/passwd",
    f"/gradio_api/file={desk.uploads.folder}/../../secret.mp4",
    f"/gradio_api/file={person.folder}/clip.mp4",
    f"/gradio_api/file={person.folder}/person.json",
    "/gradio_api/file=setup.cfg",
    "/media/../../secret.mp4",
    f"/media/{id}/person.json",
    f"/media/{id}/clip.mp4",
    f"/media/{id}/..%2f..%2f..%2fsecret.mp4",
    f"/media/{id}/%2e%2e/%2e%2e/%2e%2e/secret.mp4",
    "/media/..%2f..%2fsecret.mp4",
    "/static/../../../../etc/passwd",
    "/assets/..%2f..%2f..%2fetc/passwd",
  ):
    answer = client.get(path)
    assert answer.status_code >= 400, path
    assert SECRET not in answer.content and b"root:" not in answer.content


def test_what_belongs_to_a_person_is_served_and_cannot_run(client, desk):
  person = desk.people.add("Cid")
  (person.folder / "source.mp4").write_bytes(MP4)
  person.data.mkdir()
  (person.data / "report.html").write_text("<script>alert(1)</script>")
  answer = client.get(
    f"/media/{person.id}/source.mp4", headers={"range": "bytes=4-7"}
  )
  assert (answer.status_code, answer.content) == (206, b"ftyp")
  answer = client.get(f"/media/{person.id}/data/report.html")
  assert "sandbox" in answer.headers["content-security-policy"]


def test_a_huge_upload_is_refused_and_nothing_stays(client, browser, desk):
  def kept():
    return [p for p in desk.uploads.folder.rglob("*") if p.is_file()]

  for size in (LIMIT + 1000, LIMIT + 1_000_000):
    files = {"files": ("x.mp4", MP4 + b"\0" * size)}
    assert client.post("/gradio_api/upload", files=files).status_code == 413
  assert not kept()
  many = [("files", (f"{i}.mp4", MP4 + b"\0" * 50_000)) for i in range(20)]
  assert client.post("/gradio_api/upload", files=many).status_code == 413
  assert not kept()


def test_a_damaged_upload_is_a_sentence_on_the_page(browser, desk):
  for content in (b"<html>", b"#EXTM3U\n/etc/passwd"):
    succeeded, output = browser.prepare(browser.upload(content))
    assert not succeeded and "is not a video" in output["error"]
  succeeded, _ = browser.prepare(browser.upload(MP4))
  assert succeeded
  person, job = newest(desk)
  assert job.sentence == "clip.mp4 is damaged: copy it again."
  assert not list(desk.uploads.folder.rglob("*.mp4"))


def test_a_script_in_a_file_name_stays_a_name(browser, desk):
  name = f"{SCRIPT}'\"`.mp4"
  assert browser.prepare(browser.upload(MP4, name))[0]
  person, _ = newest(desk)
  # On the page, and in the message of an error.
  parts = "".join(views.render(desk, person))
  assert "&lt;img" in parts and "<img" not in parts
  upload = browser.upload(b"no video", name)
  _, output = browser.prepare(upload)
  assert "<" not in output["error"]


def test_two_browsers_at_once(client, config, desk):
  before = len(desk.people.all())

  def one(name):
    browser = Browser(client, config)
    return browser.prepare(browser.upload(MP4, "same.mp4"), name)[0]

  with concurrent.futures.ThreadPoolExecutor() as pool:
    assert all(pool.map(one, ["Dan", "Eve", "Fay", "Gus"]))
  people = desk.people.all()[: -before or None]
  assert {person.name for person in people} == {"Dan", "Eve", "Fay", "Gus"}
  ended = [
    desk.queue.wait(job.name, 20.0)
    for person in people
    for job in desk.queue.jobs(person.id)
  ]
  ended.sort(key=lambda job: job.started)
  for first, second in zip(ended, ended[1:], strict=False):
    assert first.ended <= second.started


def test_another_origin_or_name_is_refused(browser, client, desk):
  before = len(desk.people.all())
  for headers in (
    {"origin": "http://evil.example"},
    {"origin": "null"},
    {"host": "evil.example:7860"},
    {"sec-fetch-site": "cross-site"},
  ):
    for method, path in (
      ("POST", "/gradio_api/queue/join"),
      ("POST", "/gradio_api/upload"),
      ("GET", "/config"),
    ):
      answer = client.request(
        method, path, headers=headers, json={"data": [], "fn_index": 0}
      )
      assert answer.status_code == 403, (headers, path)
  assert len(desk.people.all()) == before


def test_training_needs_consent_whoever_asks(browser, desk):
  person = desk.people.add("Hal")
  synthetic.write_synthetic(person.data, num_frames=22)
  asked = (person.id, False, "demo", 20)
  succeeded, output = browser.send("Train", "click", *asked)
  assert not succeeded and "consent" in output["error"]
  succeeded, _ = browser.send("Train", "click", person.id, True, "demo", 20)
  assert succeeded
  job = desk.newest(person, actions.TRAIN)
  assert desk.queue.wait(job.name, 10.0).state == jobs.DONE


def test_a_stopped_training_offers_to_go_on(desk):
  person = desk.people.add("Ida")
  synthetic.write_synthetic(person.data, num_frames=22)

  def button():
    values = page._look(desk, person.id, [])
    labels = [v.get("value") for v in values if isinstance(v, dict)]
    (label,) = {"Train", "Go on"} & {v for v in labels if isinstance(v, str)}
    return label

  assert button() == "Train"
  job = desk.queue.add(person.id, actions.TRAIN, "X", [["train"]], "demo")
  desk.queue.wait(job.name, 10.0)
  assert button() == "Train"
  desk.queue._jobs[job.name].state = jobs.STOPPED
  assert button() == "Go on"
  # What did not change is not sent again: a video would begin anew.
  *values, shown = page._look(desk, person.id, [])
  again = page._look(desk, person.id, shown)
  assert all(value == gr.skip() for value in again[:-1])


def test_no_function_of_the_page_is_an_api(client, config):
  assert all(
    event["api_visibility"] == "private" for event in config["dependencies"]
  )
  assert client.post("/gradio_api/call/_look", json={}).status_code == 404


def test_it_answers_on_a_free_port_and_holds_its_folder(tmp_path, monkeypatch):
  monkeypatch.setenv("GRADIO_TEMP_DIR", "")
  monkeypatch.setenv("GRADIO_EXAMPLES_CACHE", "")
  options = {"host": "127.0.0.1", "port": 0, "most_bytes": LIMIT}
  place = tmp_path / 'it\'s an "app"'
  experiments = pathlib.Path("experiments")
  opened = page_server.opened(place, experiments, **options)
  with opened as (server, listener):
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
      port = listener.getsockname()[1]
      with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
        assert b"pir_jax" in answer.read()
      with pytest.raises(InputError, match="another page"):
        page_server.opened(place, experiments, **options).__enter__()
      taken = {**options, "port": port}
      with pytest.raises(InputError, match="cannot be listened at"):
        page_server.opened(tmp_path, experiments, **taken).__enter__()
    finally:
      server.should_exit = True
      thread.join()
