"""Serves the page: `python -m pir_jax.app`, then open the address it prints.

Prepare a video of a person, train, make videos, compare: what the other
commands do, with buttons. Everything that is uploaded and made stays in
--folder. Needs gradio: pip install 'pir_jax[app]'.
"""

import contextlib
import importlib.util
import ipaddress
import pathlib
import sys

from absl import flags

from pir_jax.media import whole_file
from pir_jax.runtime import app
from pir_jax.types import InputError

_FOLDER = flags.DEFINE_string(
  "folder", "runs/app", "Folder of all that the page writes and shows."
)
_HOST = flags.DEFINE_string(
  "host",
  "127.0.0.1",
  "Address to listen at; anything but 127.0.0.1 lets whoever can call it see "
  "and do everything here.",
)
_PORT = flags.DEFINE_integer(
  "port",
  7860,
  "Port to listen at; 0 takes a free one.",
  lower_bound=0,
  upper_bound=65535,
)
_MAX_UPLOAD = flags.DEFINE_integer(
  "max_upload_mb", 500, "Largest upload in MB.", lower_bound=1
)


def main() -> None:
  """Runs the command."""
  if importlib.util.find_spec("gradio") is None:
    raise InputError(
      "The page needs gradio: install it with pip install 'pir_jax[app]'."
    )
  experiments = pathlib.Path(__file__).parents[1] / "experiments"
  if not (experiments / "triplane.py").is_file():
    raise InputError(
      "The experiments folder is missing: run the page from a clone of the "
      "repository, installed with pip install -e '.[app]'."
    )
  if "," in str(pathlib.Path(_FOLDER.value).resolve()):
    raise InputError(f"--folder={_FOLDER.value} has a comma: rename it.")
  whole_file.check_folder(_FOLDER.value)
  if not _is_local(_HOST.value):
    print(
      f"warning: everybody who can call {_HOST.value}:{_PORT.value} can see "
      "and use all people of this page.",
      file=sys.stderr,
    )
  from pir_jax.interface import page_server

  with page_server.opened(
    pathlib.Path(_FOLDER.value),
    experiments,
    host=_HOST.value,
    port=_PORT.value,
    most_bytes=_MAX_UPLOAD.value << 20,
  ) as (server, listener):
    host = f"[{_HOST.value}]" if ":" in _HOST.value else _HOST.value
    print(f"Open http://{host}:{listener.getsockname()[1]}", flush=True)
    # The server raises the signal again that ended it.
    with contextlib.suppress(KeyboardInterrupt):
      server.run(sockets=[listener])
    print("stopping: what runs is saved first.", file=sys.stderr)


def _is_local(host: str) -> bool:
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return host == "localhost"


if __name__ == "__main__":
  app.run(main)
