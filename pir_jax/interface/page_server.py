"""Serves the page: its own address only, its own folder only."""

import asyncio
import contextlib
import logging
import os
import pathlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator

import fastapi
import gradio as gr
import uvicorn
from starlette import responses

from pir_jax.interface import actions, guard, page
from pir_jax.runtime import folder_lock
from pir_jax.types import InputError

_SWEEP_SECONDS = 600.0
# Of a browser's file: nothing in it may run, whatever it is.
_SANDBOX = {
  "content-security-policy": "sandbox; default-src 'self' data:; "
  "style-src 'unsafe-inline'"
}


def application(desk: actions.Actions, hosts: list[str]) -> guard.Guard:
  """Makes the ASGI application.

  Args:
    desk: what the buttons do.
    hosts: names by which the server may be called.
  """
  cache = str(desk.uploads.folder)
  # Where the framework keeps uploads; it serves nothing else.
  os.environ["GRADIO_TEMP_DIR"] = os.environ["GRADIO_EXAMPLES_CACHE"] = cache
  app = fastapi.FastAPI(
    lifespan=_lifespan(desk), docs_url=None, redoc_url=None, openapi_url=None
  )

  @app.get("/media/{id}/{name:path}")
  def media(id: str, name: str) -> fastapi.Response:
    """Sends a file of a person."""
    try:
      path = desk.people.get(id).file(name)
    except InputError:
      path = None
    if path is None:
      return responses.PlainTextResponse("There is nothing here.", 404)
    return responses.FileResponse(
      path, headers={"cache-control": "no-cache", **_SANDBOX}
    )

  blocks = page.build(desk)
  css = pathlib.Path(__file__).parent / "templates" / "page.css"
  app = gr.mount_gradio_app(
    app,
    blocks,
    path="/",
    footer_links=[],
    run_history=False,
    allowed_paths=[],
    show_error=True,
    max_file_size=desk.uploads.most_bytes,
    ssr_mode=False,
    enable_monitoring=False,
    pwa=False,
    mcp_server=False,
    theme=page.THEME,
    css_paths=[css],
  )
  # Without this the framework does not check the paths of files that it is
  # sent (gradio 6.31, `processing_utils._check_allowed`).
  blocks.has_launched = True
  return guard.Guard(
    app,
    hosts=hosts,
    uploads=desk.uploads.folder,
    most_bytes=desk.uploads.most_bytes,
  )


def _lifespan(desk: actions.Actions):
  @contextlib.asynccontextmanager
  async def lifespan(app: fastapi.FastAPI) -> AsyncIterator[None]:
    del app
    ended = threading.Event()

    def sweep() -> None:
      while not ended.wait(_SWEEP_SECONDS):
        desk.uploads.sweep()

    threading.Thread(target=sweep, daemon=True).start()
    try:
      yield
    finally:
      ended.set()

  return lifespan


@contextlib.contextmanager
def opened(
  folder: pathlib.Path,
  experiments: pathlib.Path,
  *,
  host: str,
  port: int,
  most_bytes: int,
) -> Iterator[tuple[uvicorn.Server, socket.socket]]:
  """Opens the page; yields its server and the socket for the server to run on.

  Args:
    folder: of all that the page writes and shows.
    experiments: folder of the experiments' files.
    host: address to listen at.
    port: likewise; 0 takes a free one.
    most_bytes: of an upload.

  Raises:
    InputError: the folder or the port is taken.
  """
  folder = folder.resolve()
  taken = (
    f"{folder} is in use by another page: stop that, or choose another "
    "--folder."
  )
  with (
    folder_lock.held(folder, taken),
    _listening(host, port) as listener,
  ):
    desk = actions.Actions(folder, experiments, most_bytes)
    try:
      config = uvicorn.Config(
        application(desk, [host, socket.gethostname()]),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=3,
      )
      logging.getLogger("uvicorn.error").addFilter(_is_no_cancellation)
      yield uvicorn.Server(config), listener
    finally:
      desk.close()


def _is_no_cancellation(record: logging.LogRecord) -> bool:
  """Leaves out what the server logs of requests that its own end cuts off."""
  error = record.exc_info and record.exc_info[0]
  cut_off = error is not None and issubclass(error, asyncio.CancelledError)
  # A second Ctrl-C comes as the text of a traceback.
  message = record.getMessage()
  known = ("timeout graceful shutdown", "asyncio.exceptions.CancelledError")
  return not (cut_off or any(text in message for text in known))


@contextlib.contextmanager
def _listening(host: str, port: int):
  try:
    family, _, _, _, address = socket.getaddrinfo(
      host, port, type=socket.SOCK_STREAM
    )[0]
    listener = socket.create_server(address[:2], family=family)
  except OSError as error:
    raise InputError(
      f"{host}:{port} cannot be listened at ({error.strerror}): choose another "
      "--port or --host."
    ) from error
  with listener:
    yield listener
