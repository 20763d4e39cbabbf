"""Copies of clips at an address, whole or not counted."""

import json

import pytest

from pir_jax.preparation import delivery
from pir_jax.types import InputError

fsspec = pytest.importorskip("fsspec")


@pytest.fixture(params=["memory", "file"])
def place(request, tmp_path):
  if request.param == "file":
    return f"file://{tmp_path}/there/data"
  system = fsspec.filesystem("memory")
  system.store.clear()
  return "memory://there/data"


def make_clip(folder, name, **values):
  clip = folder / name
  (clip / "inside").mkdir(parents=True)
  (clip / "manifest.json").write_text(json.dumps(values))
  (clip / "a").write_bytes(b"first")
  (clip / "inside" / "z").write_bytes(b"last")
  return clip


def test_clip_arrives_whole_and_is_replaced_whole(tmp_path, place):
  assert delivery.read_manifests(place) == {}
  clip = make_clip(tmp_path, "me", sha256="1")
  delivery.send(clip, f"{place}/me")
  assert delivery.read_manifests(place) == {"me": {"sha256": "1"}}
  delivery.fetch(place, "me/inside/z", tmp_path / "back")
  assert (tmp_path / "back" / "me" / "inside" / "z").read_bytes() == b"last"
  (clip / "a").unlink()
  (clip / "manifest.json").write_text('{"sha256": "2"}')
  delivery.send(clip, f"{place}/me")
  assert delivery.read_manifests(place) == {"me": {"sha256": "2"}}
  delivery.fetch(place, "me/a", tmp_path / "gone")
  assert not (tmp_path / "gone" / "me").exists()


def test_clip_without_its_manifest_is_not_there(tmp_path, place, monkeypatch):
  clip = make_clip(tmp_path, "me", sha256="1")
  system = type(fsspec.core.url_to_fs(place)[0])
  put_file, sent = system.put_file, []

  def broken(self, source, target, **given):
    if sent:
      raise OSError("the line is cut")
    sent.append(target)
    put_file(self, source, target, **given)

  with monkeypatch.context() as patched:
    patched.setattr(system, "put_file", broken)
    with pytest.raises(OSError):
      delivery.send(clip, f"{place}/me")
  assert delivery.read_manifests(place) == {}
  delivery.send(clip, f"{place}/me")
  assert delivery.read_manifests(place) == {"me": {"sha256": "1"}}


def test_small_files_are_put_and_taken_away(tmp_path, place):
  delivery.put(place, "failed.json", b"{}")
  delivery.fetch(place, "failed.json", tmp_path)
  assert (tmp_path / "failed.json").read_bytes() == b"{}"
  delivery.put(place, "failed.json", None)
  delivery.put(place, "failed.json", None)
  (tmp_path / "failed.json").unlink()
  delivery.fetch(place, "failed.json", tmp_path)
  assert not (tmp_path / "failed.json").exists()


def test_address_of_an_unknown_kind_is_told():
  assert delivery.is_remote("gs://bucket/x") and not delivery.is_remote("a/b")
  with pytest.raises(InputError, match="nowhere://bucket"):
    delivery.read_manifests("nowhere://bucket")
