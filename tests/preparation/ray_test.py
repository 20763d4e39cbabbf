"""The same data set from a cluster, of which a part dies."""

import os
import pathlib
import sys
import threading
import time

import pytest

from pir_jax import assets
from pir_jax.data import hdtf
from pir_jax.preparation import batch, pipeline, ray
from pir_jax.types import InputError

SETTINGS = pipeline.Settings()


def make_videos(folder, count):
  folder.mkdir()
  video = assets.fetch("demo_video")
  for number in range(count):
    start = 0.6 * number
    cut = hdtf.Cut(name=f"c{number:02d}", start=start, end=start + 0.7)
    cut.write(video, folder / cut.source)
  (folder / "damaged.mp4").write_bytes(b"no video")
  return folder


def tree(folder):
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(pathlib.Path(folder).rglob("*"))
    if path.is_file()
  }


@pytest.fixture
def environment(monkeypatch):
  """As a user has it: conftest's switches are for other tests."""
  for name in ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS"):
    monkeypatch.delenv(name, raising=False)
  root = str(pathlib.Path(__file__).parents[2])
  monkeypatch.setenv(
    "PYTHONPATH", os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
  )


@pytest.mark.slow
def test_node_dies_and_the_data_set_is_the_same(tmp_path, environment):
  pytest.importorskip("ray")
  from ray.cluster_utils import Cluster

  videos = make_videos(tmp_path / "videos", 5)
  inputs = batch.list_videos([str(videos)])
  local = batch.run_locally(2)
  batch.prepare_all(inputs, str(tmp_path / "local"), SETTINGS, local)

  cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
  doomed = cluster.add_node(num_cpus=1)
  output = tmp_path / "cluster"

  def kill():
    # In the middle: the first clip is done, others are being done.
    while not list(output.glob("*/manifest.json")):
      time.sleep(0.05)
    cluster.remove_node(doomed, allow_graceful=False)

  killer = threading.Thread(target=kill, daemon=True)
  killer.start()
  try:
    on_cluster = ray.run(cluster.address)
    failed = batch.prepare_all(inputs, str(output), SETTINGS, on_cluster)
  finally:
    killer.join(timeout=60)
    cluster.shutdown()
  assert not killer.is_alive()
  assert [outcome.task.name for outcome in failed] == ["damaged"]
  assert tree(output) == tree(tmp_path / "local")


def test_address_at_which_nothing_answers():
  pytest.importorskip("ray")
  with pytest.raises(InputError, match="no Ray cluster answers"):
    list(ray.run("127.0.0.1:1")([]))


def test_without_ray_it_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, "ray", None)
  with pytest.raises(InputError, match=r"pir_jax\[ray\]"):
    ray.run("auto")
