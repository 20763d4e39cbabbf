"""The user's own signing key and certificates: made once, private, not shared.

A lone self-signed certificate is refused by C2PA, so an authority of the user's
own certifies the key (RFC 5280; C2PA 2.2, section 14.5). The authority's key is
forgotten at once. Nobody else vouches for it: what is signed with it is valid,
and not trusted.
"""

import datetime
import os
import pathlib
from typing import NamedTuple

import filelock
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from pir_jax.media import whole_file
from pir_jax.types import InputError

_FILE = "signing_key.pem"
_YEARS = 10
_BEGIN = b"-----BEGIN CERTIFICATE-----"
_PEM = serialization.Encoding.PEM


class Key(NamedTuple):
  """A private key and its certificates, in PEM.

  Attributes:
    private: the key.
    chain: certificates of the key and of who certified it.
    name: by which the certificate calls the signer.
  """

  private: bytes
  chain: bytes
  name: str

  @property
  def authority(self) -> bytes:
    """The last certificate: who trusts it trusts what the key signed."""
    return _BEGIN + self.chain.rpartition(_BEGIN)[2]


def directory() -> pathlib.Path:
  """$PIR_JAX_KEYS, else pir_jax in the user's folder of settings."""
  if folder := os.environ.get("PIR_JAX_KEYS"):
    return pathlib.Path(folder).expanduser()
  base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
  return pathlib.Path(base).expanduser() / "pir_jax"


def existing() -> Key | None:
  """Returns the user's key; None where none was made yet.

  Raises:
    InputError: others may read it, or it is damaged or out of date.
  """
  path = directory() / _FILE
  if not path.exists():
    return None
  if path.stat().st_mode & 0o077:
    raise InputError(
      f"{path} may be read by others: say chmod 600, or delete it and another "
      "is made."
    )
  text = path.read_bytes()
  private, _, chain = text.partition(_BEGIN)
  chain = _BEGIN + chain
  try:
    serialization.load_pem_private_key(private, None)
    certificate = x509.load_pem_x509_certificates(chain)[0]
  except ValueError as error:
    raise InputError(
      f"{path} is damaged: delete it, and another key is made."
    ) from error
  if certificate.not_valid_after_utc < datetime.datetime.now(datetime.UTC):
    raise InputError(f"{path} is out of date: delete it, and another is made.")
  (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
  return Key(private, chain, str(name.value))


def own() -> Key:
  """Returns the user's key, which is made the first time.

  Raises:
    InputError: it cannot be read or written.
  """
  folder = directory()
  try:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Two processes at once make one key.
    with filelock.FileLock(folder / f"{_FILE}.lock"):
      key = existing()
      if key is None:
        _make(folder / _FILE)
        key = existing()
  except OSError as error:
    raise InputError(
      f"the signing key cannot be kept in {folder} ({error.strerror}): name "
      "another folder with PIR_JAX_KEYS, or write without marks (--mark=none)."
    ) from error
  return key


def _make(path: pathlib.Path) -> None:
  authority, signer = (ec.generate_private_key(ec.SECP256R1()) for _ in "ab")
  public = signer.public_key().public_bytes(
    serialization.Encoding.DER,
    serialization.PublicFormat.SubjectPublicKeyInfo,
  )
  digest = hashes.Hash(hashes.SHA256())
  digest.update(public)
  name = f"pir_jax user {digest.finalize().hex()[:8]}"
  certificates = (
    _certificate(name, signer, authority, is_authority=False),
    _certificate(name, authority, authority, is_authority=True),
  )
  with whole_file.written(path) as hidden:
    # Nobody else may read it at any moment.
    file = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "wb") as out:
      out.write(
        signer.private_bytes(
          _PEM,
          serialization.PrivateFormat.PKCS8,
          serialization.NoEncryption(),
        )
      )
      for certificate in certificates:
        out.write(certificate.public_bytes(_PEM))


def _certificate(
  name: str,
  key: ec.EllipticCurvePrivateKey,
  authority: ec.EllipticCurvePrivateKey,
  *,
  is_authority: bool,
) -> x509.Certificate:
  """Certifies a key: to sign certificates, or else documents and media."""

  def named(name: str) -> x509.Name:
    return x509.Name(
      [
        x509.NameAttribute(NameOID.COMMON_NAME, name),
        # C2PA readers show it as the issuer.
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "self-signed"),
      ]
    )

  issuer = f"{name}, authority"
  # A day earlier: clocks differ.
  begin = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
  usage = dict.fromkeys(
    (
      *("digital_signature", "content_commitment", "key_encipherment"),
      *("data_encipherment", "key_agreement", "key_cert_sign", "crl_sign"),
      *("encipher_only", "decipher_only"),
    ),
    False,
  )
  usage["key_cert_sign" if is_authority else "digital_signature"] = True
  builder = (
    x509.CertificateBuilder()
    .subject_name(named(issuer if is_authority else name))
    .issuer_name(named(issuer))
    .public_key(key.public_key())
    .serial_number(x509.random_serial_number())
    .not_valid_before(begin)
    .not_valid_after(begin + datetime.timedelta(days=365 * _YEARS))
    .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
    .add_extension(x509.KeyUsage(**usage), critical=True)
    .add_extension(
      x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
      critical=False,
    )
  )
  if not is_authority:
    builder = builder.add_extension(
      x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]),
      critical=False,
    ).add_extension(
      x509.AuthorityKeyIdentifier.from_issuer_public_key(
        authority.public_key()
      ),
      critical=False,
    )
  return builder.sign(authority, hashes.SHA256())
