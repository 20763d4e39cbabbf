"""EG3D's weights give EG3D's numbers.

The generator's reference file is large and not part of the repository: point
PIR_JAX_REFERENCE at the folder that has eg3d_generator.npz to compare with it.
"""

import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pir_jax.convert import eg3d
from pir_jax.geometry import cameras, rays, triplane

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
REFERENCE = os.environ.get("PIR_JAX_REFERENCE")


def _weights(golden):
  names = (n for n in golden.files if n.startswith("param/"))
  return {name[len("param/") :]: golden[name] for name in names}


def _close(got, want, fraction):
  """Largest error as a fraction of the reference's spread."""
  assert np.abs(np.asarray(got) - want).max() < fraction * want.std()


def test_discriminator_agrees():
  golden = np.load(GOLDENS / "eg3d_discriminator.npz")
  network = eg3d.discriminator_from_torch(_weights(golden))
  image, raw = (
    jnp.asarray(np.moveaxis(golden[f"in/{name}"], 1, -1))
    for name in ("image", "image_raw")
  )
  got = jax.jit(network)(image, raw, jnp.asarray(golden["in/camera"]))
  # A dozen layers of float32 sums, read as a small difference.
  _close(got, golden["out/logits"][:, 0], 1e-4)


def test_a_wrong_file_is_explained():
  with pytest.raises(ValueError, match="has no backbone.synthesis.b4"):
    eg3d.from_torch({"G_ema.backbone": np.zeros(1)})
  with pytest.raises(ValueError, match=r"has no b8.conv0.weight"):
    eg3d.discriminator_from_torch({})


@pytest.mark.skipif(
  REFERENCE is None, reason="PIR_JAX_REFERENCE names no folder of references"
)
def test_generator_agrees():
  golden = np.load(pathlib.Path(REFERENCE) / "eg3d_generator.npz")
  network = eg3d.from_torch(_weights(golden))
  assert network.config.channel_base == 2048
  camera, points = (
    jnp.asarray(golden[f"in/{n}"]) for n in ("camera", "points")
  )
  got = jax.jit(network.synthesize)(jnp.asarray(golden["in/ws"]), camera)
  planes = np.moveaxis(got.planes, -1, 2)
  _close(
    planes.reshape(2, 96, 256, 256)[:, :, ::8, ::8],
    golden["out/planes_every_8"],
    1e-4,
  )
  lines = rays.cast(cameras.from_vector(camera), 64)
  _close(lines.origins[:, ::64], golden["out/ray_origins"], 1e-4)
  _close(lines.directions[:, ::64], golden["out/ray_directions"], 1e-4)
  packed = triplane.pack_corners(got.planes)
  where = triplane.project(2 * points, layout="eg3d")
  features = triplane.lookup(packed, where)
  _close(features, golden["out/plane_features"], 1e-4)
  samples = network.renderer.sample(packed, points)
  _close(samples.density, golden["out/sigma"][..., 0], 1e-4)
  _close(samples.color, golden["out/rgb"], 1e-4)
  feature_image = np.moveaxis(golden["out/feature_image"], 1, -1)
  _close(got.feature_image, feature_image, 1e-4)
  _close(got.depth.reshape(2, -1), golden["out/depth"][..., 0], 1e-4)
  _close(got.weight_sum.reshape(2, -1), golden["out/weight_sum"][..., 0], 1e-4)
  image = np.moveaxis(golden["out/image_every_2"], 1, -1)
  _close(got.image[:, ::2, ::2], image, 1e-3)
