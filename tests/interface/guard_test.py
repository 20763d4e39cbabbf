"""Only the page's own requests get through, and only those that it makes."""

import pathlib

import pytest

pytest.importorskip("starlette")

from starlette import applications, requests, responses, routing, testclient

from pir_jax.interface import guard

OWN = "http://127.0.0.1:7860"


async def answer(request: requests.Request):
  size = len(await request.body())
  return responses.PlainTextResponse(f"{size}")


@pytest.fixture(scope="module")
def client():
  ways = ["GET", "POST", "PUT", "DELETE"]
  app = applications.Starlette(
    routes=[routing.Route("/{path:path}", answer, methods=ways)]
  )
  app = guard.Guard(
    app,
    hosts=["My-Machine"],
    uploads=pathlib.Path("/run/uploads"),
    most_bytes=100_000,
  )
  return testclient.TestClient(app, base_url=OWN)


def status(client, method, path, **headers):
  names = {name.replace("_", "-"): value for name, value in headers.items()}
  return client.request(method, path, headers=names).status_code


@pytest.mark.parametrize(
  "path",
  [
    "/",
    "/assets/a.js",
    "/media/ab/source.mp4",
    "/gradio_api/queue/data",
    "/gradio_api/file=/somewhere/x.mp4",
  ],
)
def test_the_page_s_own_requests_pass(client, path):
  assert status(client, "GET", path) == 200
  same = {"origin": OWN, "sec_fetch_site": "same-origin"}
  assert status(client, "GET", path, **same) == 200


@pytest.mark.parametrize(
  "path",
  [
    "/gradio_api/call/x",
    "/gradio_api/run/predict",
    "/gradio_api/api/x",
    "/gradio_api/proxy=http://example.com/",
    "/gradio_api/file=http://example.com/",
    "/gradio_api/file=HTTPS://example.com/",
    "/gradio_api/component_server",
    "/gradio_api/info",
    "/gradio_api/openapi.json",
    "/gradio_api/runs",
    "/gradio_api/run-history/buckets",
    "/gradio_api/mcp/",
    "/gradio_api/dev/reload",
    "/monitoring",
    "/login",
    "/docs",
  ],
)
def test_addresses_that_the_page_has_no_use_for_are_closed(client, path):
  assert status(client, "GET", path) == 404
  assert status(client, "POST", path) == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_closed(client, method):
  assert status(client, method, "/") == 404


@pytest.mark.parametrize(
  "origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "file://"]
)
def test_another_origin_is_refused(client, origin):
  for method, path in (("POST", "/gradio_api/queue/join"), ("GET", "/")):
    assert status(client, method, path, origin=origin) == 403


def test_another_page_may_link_here_but_not_load_anything(client):
  site = {"sec_fetch_site": "cross-site"}
  visit = {**site, "sec_fetch_mode": "navigate"}
  assert status(client, "GET", "/", **visit) == 200
  assert status(client, "GET", "/", **site, sec_fetch_mode="no-cors") == 403
  assert status(client, "GET", "/media/ab/source.mp4", **visit) == 403


@pytest.mark.parametrize(
  ("host", "code"),
  [
    ("127.0.0.1:7860", 200),
    ("localhost:7860", 200),
    ("[::1]:7860", 200),
    ("my-machine", 200),
    ("evil.example:7860", 403),  # DNS rebinding.
    ("127.0.0.1.evil.example", 403),
    ("localhost.evil.example", 403),
    ("", 403),
    ("[::1", 403),
  ],
)
def test_only_names_of_this_machine_are_served(client, host, code):
  assert status(client, "GET", "/", host=host) == code


def test_large_requests_are_refused_by_their_length(client):
  limit = guard._LARGEST_BODY
  assert client.post("/gradio_api/cancel", content=b"x" * limit).text == str(
    limit
  )
  answer = client.post("/gradio_api/cancel", content=b"x" * (limit + 1))
  assert answer.status_code == 413
  answer = client.post("/gradio_api/upload", content=b"x" * 200_000)
  assert answer.status_code == 413


def test_large_requests_without_a_length_are_cut_off(client):
  blocks = (b"x" * 10_000 for _ in range(1000))
  with pytest.raises(requests.ClientDisconnect):
    client.post("/gradio_api/upload", content=blocks)


@pytest.mark.parametrize(
  ("path", "code"),
  [
    ("/run/uploads/ab/x.mp4", 200),
    ("/run/uploads/../secret.mp4", 403),
    ("/run/uploads2/x.mp4", 403),
    ("/etc/passwd", 403),
    ("x.mp4", 403),
    ("http://example.com/x.mp4", 403),
    ("", 403),
    (None, 403),
    (["/etc/passwd"], 403),
  ],
)
def test_an_event_may_name_uploads_only(client, path, code):
  for data in ([{"path": path}], ["", {"a": [{"b": {"path": path}}]}]):
    body = {"fn_index": 0, "data": data}
    answer = client.post("/gradio_api/queue/join", json=body)
    assert answer.status_code == code
    if code == 200:  # And the page gets it whole.
      assert int(answer.text) == len(answer.request.content)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_an_event_that_is_no_json_is_refused(client, body):
  answer = client.post("/gradio_api/queue/join", content=body)
  assert answer.status_code == 403


def test_a_web_socket_is_closed(client):
  with pytest.raises(testclient.WebSocketDisconnect):
    with client.websocket_connect("/"):
      pass


def test_nothing_may_be_loaded_from_elsewhere(client):
  headers = client.get("/").headers
  policy = headers["content-security-policy"]
  assert "default-src 'self'" in policy and "http" not in policy
  assert headers["x-content-type-options"] == "nosniff"
