"""A key is made once, stays private, and is refused when it is not sound."""

import os
import stat
import subprocess
import sys

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from pir_jax.marks import keys
from pir_jax.types import InputError


@pytest.fixture
def folder(tmp_path, monkeypatch):
  folder = tmp_path / 'the user\'s "keys"'
  monkeypatch.setenv("PIR_JAX_KEYS", str(folder))
  return folder


def test_it_is_made_once_and_nobody_else_reads_it(folder):
  assert keys.existing() is None
  key = keys.own()
  assert keys.own() == keys.existing() == key
  assert stat.S_IMODE(folder.stat().st_mode) == 0o700
  for path in folder.glob("*.pem"):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
  assert b"PRIVATE KEY" in key.private and b"PRIVATE" not in key.chain


def test_certificates_are_what_c2pa_asks_for(folder):
  key = keys.own()
  signer, authority = x509.load_pem_x509_certificates(key.chain)
  signer.verify_directly_issued_by(authority)
  authority.verify_directly_issued_by(authority)
  usage = signer.extensions.get_extension_for_class(x509.KeyUsage)
  assert usage.critical and usage.value.digital_signature
  purposes = signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
  assert list(purposes.value) == [ExtendedKeyUsageOID.EMAIL_PROTECTION]
  assert x509.load_pem_x509_certificate(key.authority) == authority


def test_two_processes_at_once_make_one_key(folder):
  code = "from pir_jax.marks import keys; print(keys.own().chain.hex())"
  both = [
    subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    for _ in range(2)
  ]
  first, second = (process.communicate()[0] for process in both)
  assert first == second and first.strip()
  assert len(list(folder.glob("*.pem"))) == 1


def test_a_key_that_others_may_read_or_that_is_damaged_is_refused(folder):
  keys.own()
  (path,) = folder.glob("*.pem")
  path.chmod(0o644)
  with pytest.raises(InputError, match="may be read by others"):
    keys.own()
  path.chmod(0o600)
  path.write_bytes(path.read_bytes()[:300])
  with pytest.raises(InputError, match="damaged"):
    keys.own()


def test_a_folder_that_cannot_be_made_is_a_sentence(folder):
  folder.parent.joinpath(folder.name).write_text("a file")
  with pytest.raises(InputError, match=r"PIR_JAX_KEYS.*--mark=none"):
    keys.own()


def test_the_place_follows_the_environment(monkeypatch, tmp_path):
  monkeypatch.delenv("PIR_JAX_KEYS")
  monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
  assert keys.directory() == tmp_path / "pir_jax"
  monkeypatch.delenv("XDG_CONFIG_HOME")
  assert keys.directory().parent == (tmp_path.home() / ".config")
  assert os.environ.get("PIR_JAX_KEYS") is None
