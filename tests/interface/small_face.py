"""A small random face for the tests of the interface."""

import functools

import numpy as np
from flax import nnx

from pir_jax.inference import viewer as viewer_lib
from pir_jax.interface import face_view
from pir_jax.models import renderer, triplane_generator
from pir_jax.types import FaceSpace

SPACE = FaceSpace(
  3,
  ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "cheekPuff"),
  np.float32([0.123, 0.2, 0.3, 0.4]),
  np.float32([0.5, 0.25, 0.5, 1.0]),
)
MEAN = np.float32([0.234, 0.1, 0.2, 0.3])
VIEW = viewer_lib.in_front()


def network(seed=0, space=SPACE):
  config = triplane_generator.Config(
    identity_size=space.identity_size,
    expression_size=space.expression_size,
    map_depth=1,
    w_size=8,
    channel_base=32,
    channel_max=4,
    plane_resolution=8,
    plane_channels=4,
    feature_resolution=8,
    resolution=32,
    sr_channels=(4, 4),
    noise=False,
    renderer=renderer.Config(num_coarse=6, num_fine=0),
  )
  made = triplane_generator.TriPlaneGenerator(config, rngs=nnx.Rngs(seed))
  # Dense enough that rays end in matter.
  made.renderer.decoder.output.bias[0] = 10.0
  return made


@functools.cache  # Its programs are compiled once for all tests of a file.
def face():
  identity = np.float32([0.5, -1.0, 2.0])
  return face_view.FaceView(network(), SPACE, identity, MEAN)
