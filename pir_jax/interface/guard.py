"""Lets only this page's own requests through to it, and only those it makes.

A web page of somebody else, in a browser that can see this server, could send
requests to it, or by a name that it points at this machine (DNS rebinding) also
read the answers. Both are refused, and so is every address that the page has
no use for, such as the API of its framework; and so are files that a request
names, other than uploads: the framework would copy them, or fetch them.
"""

import ipaddress
import json
import os
import pathlib
import re
import urllib.parse
from collections.abc import Iterable
from typing import Any

from starlette import requests, responses
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The page, its own files, and the routes that its scripts call.
_GET = re.compile(
  r"/|/config|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json"
  r"|/(assets|static|svelte|media)/.*"
  r"|/gradio_api/(queue/data|startup-events|upload_progress|theme\.css|app_id)"
  r"|/gradio_api/heartbeat/\w+"
  r"|/gradio_api/file=(?!\w+:/).*"
)
_POST = re.compile(r"/gradio_api/(queue/join|upload|cancel|reset)/?")
_UPLOAD = "/gradio_api/upload"
_EVENT = "/gradio_api/queue/join"  # Triggers an event, with its inputs.
_LARGEST_BODY = 1 << 20  # Bytes of a request that is no upload.
_OVERHEAD = 1 << 16  # Bytes of an upload's frame.

# Nothing comes from another host, whatever gets into the page.
_POLICY = "; ".join(
  (
    "default-src 'self'",
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:",
    "media-src 'self' data: blob:",
    "font-src 'self' data:",
    "connect-src 'self' data: blob:",
    "worker-src 'self' blob:",
    "frame-src 'self'",
    "frame-ancestors 'self'",
    "form-action 'self'",
    "base-uri 'self'",
    "object-src 'none'",
  )
)
_HEADERS = {
  b"content-security-policy": _POLICY.encode(),
  b"x-content-type-options": b"nosniff",
  b"referrer-policy": b"no-referrer",
  b"cross-origin-resource-policy": b"same-origin",
}


class Guard:
  """ASGI middleware around the whole application."""

  def __init__(
    self,
    app: ASGIApp,
    *,
    hosts: Iterable[str],
    uploads: pathlib.Path,
    most_bytes: int,
  ):
    """Wraps an application.

    Args:
      app: to wrap.
      hosts: names by which the server may be called, besides IP addresses:
        those cannot be pointed elsewhere.
      uploads: folder of the files that a request may name.
      most_bytes: of an upload.
    """
    self._app, self._uploads = app, uploads
    self._hosts = {"localhost", *(host.lower() for host in hosts)}
    self._most_bytes = most_bytes

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a request, or has the application answer it."""
    if scope["type"] == "lifespan":
      await self._app(scope, receive, send)
      return
    if scope["type"] != "http":  # The page opens no web socket.
      await send({"type": "websocket.close", "code": 1008})
      return
    headers = Headers(scope=scope)
    limit = _LARGEST_BODY
    if scope["path"].rstrip("/") == _UPLOAD:
      limit = self._most_bytes + _OVERHEAD
    if refusal := self._refusal(scope, headers, limit):
      code, sentence = refusal
      response = responses.PlainTextResponse(sentence, code)
      await response(scope, receive, send)
      return

    async def guarded_send(message: Message) -> None:
      if message["type"] == "http.response.start":
        own = list(message.get("headers", ()))
        names = {name.lower() for name, _ in own}
        added = [item for item in _HEADERS.items() if item[0] not in names]
        message = {**message, "headers": own + added}
      await send(message)

    receive = _limited(receive, limit)
    if scope["path"].rstrip("/") == _EVENT and scope["method"] == "POST":
      body = await requests.Request(scope, receive).body()
      if not self._may_read(body):
        sentence = "This names a file that was not uploaded here."
        response = responses.PlainTextResponse(sentence, 403)
        await response(scope, receive, send)
        return
      receive = _again(body, receive)
    await self._app(scope, receive, guarded_send)

  def _may_read(self, body: bytes) -> bool:
    try:
      return all(
        isinstance(path, str)
        and pathlib.PurePath(os.path.normpath(path)).is_relative_to(
          self._uploads
        )
        for path in _paths(json.loads(body))
      )
    except (ValueError, RecursionError):
      return False

  def _refusal(
    self, scope: Scope, headers: Headers, limit: int
  ) -> tuple[int, str] | None:
    """Returns the code and the sentence with which to refuse; None if not."""
    host, origin = headers.get("host", ""), headers.get("origin")
    if not self._knows(host):
      return 403, "This page is not served under that name."
    if origin is not None and urllib.parse.urlsplit(origin).netloc != host:
      return 403, "This request is from another page."
    is_visit = (
      scope["path"] == "/" and headers.get("sec-fetch-mode") == "navigate"
    )
    site = headers.get("sec-fetch-site", "none")
    if site not in ("none", "same-origin") and not is_visit:
      return 403, "This request is from another page."
    allowed = {"GET": _GET, "HEAD": _GET, "POST": _POST}.get(scope["method"])
    if allowed is None or not allowed.fullmatch(scope["path"]):
      return 404, "There is nothing here."
    try:
      too_large = int(headers.get("content-length", "0")) > limit
    except ValueError:
      return 400, "The length of this request is no number."
    return (413, "This is too large.") if too_large else None

  def _knows(self, host: str) -> bool:
    try:
      name = urllib.parse.urlsplit(f"//{host}").hostname or ""
    except ValueError:
      return False
    try:
      ipaddress.ip_address(name)
    except ValueError:
      return name in self._hosts
    return True


def _paths(value: Any) -> Iterable[Any]:
  """Yields what is called a path anywhere in a value of JSON."""
  if isinstance(value, dict):
    if "path" in value:
      yield value["path"]
    value = list(value.values())
  if isinstance(value, list):
    for item in value:
      yield from _paths(item)


def _again(body: bytes, receive: Receive) -> Receive:
  """Hands out a body that was read already, and then what comes."""
  left = [{"type": "http.request", "body": body, "more_body": False}]

  async def again() -> Message:
    return left.pop() if left else await receive()

  return again


def _limited(receive: Receive, limit: int) -> Receive:
  """Ends a request that goes on after so many bytes, as if it were cut off."""
  seen = 0

  async def limited() -> Message:
    nonlocal seen
    message = await receive()
    seen += len(message.get("body", b""))
    return {"type": "http.disconnect"} if seen > limit else message

  return limited
