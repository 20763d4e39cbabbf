"""The cache: what is fetched is what the lock names, or a sentence says why."""

import concurrent.futures
import hashlib
import subprocess
import zipfile

import pytest

from pir_jax import assets
from pir_jax.types import InputError

CONTENT = b"forty-two"


@pytest.fixture
def cache(tmp_path, monkeypatch):
  """A cache of its own and a lock of one package, put there by hand."""
  monkeypatch.setenv("PIR_JAX_CACHE", str(tmp_path / "cache"))
  monkeypatch.setattr(assets, "LOCK", tmp_path / "assets.toml")
  return tmp_path / "cache"


def _package(cache, member="box/a.bin", content=CONTENT, sha256=None):
  """Writes an archive and the lock that goes with it."""
  folder = cache / "archives"
  folder.mkdir(parents=True, exist_ok=True)
  with zipfile.ZipFile(folder / "box-1.0.whl", "w") as box:
    box.writestr(member, content)
  sha256 = sha256 or hashlib.sha256(CONTENT).hexdigest()
  assets.LOCK.write_text(
    f"""
[[package]]
package = "box"
version = "1.0"
file = "box-1.0.whl"
sha256 = "{assets.digest(folder / "box-1.0.whl")}"

[[package.asset]]
name = "thing"
use = "a test"
licence = "CC0-1.0"
members = ["*.bin"]
sha256 = "{sha256}"
"""
  )


def test_fetch_gives_the_member_and_leaves_nothing_else(cache):
  _package(cache)
  path = assets.fetch("thing")
  assert path.read_bytes() == CONTENT
  assert not list(cache.glob("fetch-*"))


def test_tampered_file_is_refused(cache):
  _package(cache)
  assets.fetch("thing").write_bytes(b"other")
  with pytest.raises(InputError, match="delete it"):
    assets.fetch("thing")


def test_member_that_the_lock_does_not_name_is_refused(cache):
  _package(cache, content=b"other")
  with pytest.raises(InputError, match="not what the lock names"):
    assets.fetch("thing")
  assert not list((cache / "assets").iterdir())


def test_tampered_archive_is_refused(cache):
  _package(cache)
  (cache / "archives" / "box-1.0.whl").write_bytes(b"other")
  with pytest.raises(InputError, match="sha256"):
    assets.fetch("thing")


def test_unsafe_path_is_refused(cache):
  _package(cache, member="../../a.bin")
  with pytest.raises(InputError, match="unsafe path"):
    assets.fetch("thing")


def test_offline_error_names_file_version_and_place(cache, monkeypatch):
  _package(cache)
  (cache / "archives" / "box-1.0.whl").unlink()

  def no_network(command, **options):
    return subprocess.CompletedProcess(command, 1, "", "ERROR: no route\n")

  monkeypatch.setattr(subprocess, "run", no_network)
  with pytest.raises(InputError) as caught:
    assets.fetch("thing")
  message = str(caught.value)
  for part in ("box-1.0.whl", "box==1.0", str(cache / "archives"), "no route"):
    assert part in message
  assert "\n" not in message


def test_many_at_once(cache):
  _package(cache)
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    paths = list(pool.map(assets.fetch, ["thing"] * 8))
  assert len(set(paths)) == 1
  assert paths[0].read_bytes() == CONTENT


def test_lock_of_the_repository_states_licences():
  for package in assets.read_lock():
    assert len(package.sha256) == 64
    assert all(asset.licence and asset.use for asset in package.assets)
