"""What a browser and viser exchange, without a browser."""

import contextlib
import io

import msgspec
import numpy as np
import viser
import zstandard
from PIL import Image
from websockets.sync import client


class BareBrowser:
  """A connected client with a camera in front of the head."""

  def __init__(self, url, width=120, height=100):
    self._socket = client.connect(
      url.replace("http", "ws"),
      subprotocols=[f"viser-v{viser.__version__}"],
      max_size=None,
      compression=None,
    )
    self._size = width, height
    self.look_from(2.7)

  def look_from(self, distance, **changes):
    width, height = self._size
    message = {
      "type": "ViewerCameraMessage",
      "wxyz": (0.0, 1.0, 0.0, 0.0),
      "position": (0.0, 0.0, distance),
      "fov": 0.4,
      "near": 0.01,
      "far": 100.0,
      "image_height": height,
      "image_width": width,
      "look_at": (0.0, 0.0, 0.0),
      "up_direction": (0.0, 1.0, 0.0),
    }
    self._socket.send(msgspec.msgpack.encode(message | changes))

  def messages(self, wanted, timeout=20.0):
    """Yields messages of a type, until none comes any more."""
    while True:
      data = self._socket.recv(timeout=timeout)
      size = int.from_bytes(data[8:16], "little")
      text = zstandard.ZstdDecompressor().decompress(data[16 : 16 + size])
      batch = msgspec.msgpack.decode(text)
      start = 16 + size
      buffers = []
      for length in batch["binaryBufferLengths"]:
        start += -start % 8
        buffers.append(data[start : start + length])
        start += length
      for message in batch["messages"]:
        if message["type"] == wanted:
          yield message, buffers

  def picture(self, timeout=20.0):
    """Returns the next picture that is pushed."""
    for message, buffers in self.messages("BackgroundImageMessage", timeout):
      data = message["rgb_data"]
      if data is None:
        continue
      if isinstance(data, dict):
        data = buffers[data["__binary_index"]]
      return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    raise AssertionError("no picture was pushed")

  def picture_at_rest(self):
    """Returns the last picture that is pushed, once none follows."""
    picture = self.picture()
    with contextlib.suppress(TimeoutError):
      while True:
        picture = self.picture(timeout=0.7)
    return picture

  def close(self):
    self._socket.close()
