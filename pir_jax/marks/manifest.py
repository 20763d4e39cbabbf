"""A signed manifest in a video file: who made it, from what (C2PA 2.2).

It is bound to the file's bytes: any change after the signature, even a copy
into another container, breaks it.
"""

import json
import mimetypes
import pathlib
from typing import Any, NamedTuple

import c2pa
from c2pa import C2paError

from pir_jax.marks import keys
from pir_jax.media import whole_file
from pir_jax.types import InputError

_GENERATOR = "pir_jax"
# A reverse domain name, as C2PA asks for of assertions that are not its own.
_ASSERTION = "org.pir_jax.reenactment"
_SOURCE_TYPE = (
  "http://cv.iptc.org/newscodes/digitalsourcetype/"
  "compositeWithTrainedAlgorithmicMedia"
)
_ANY_KIND = "application/octet-stream"
_UNREADABLE = "asset could not be parsed"
VALID, TRUSTED, INVALID = "valid, not trusted", "valid, trusted", "invalid"


class Manifest(NamedTuple):
  """What a manifest states, and whether it holds.

  Attributes:
    state: one of VALID, TRUSTED (somebody whom this machine's C2PA settings
      trust vouches for the key) and INVALID.
    reasons: codes of what does not hold.
    generator: program that wrote it, with its version.
    signer: as the certificate names them; anybody may take any name.
    is_own: it was signed with this user's own key.
    record: of inputs and settings, where pir_jax wrote it.
  """

  state: str
  reasons: tuple[str, ...] = ()
  generator: str = ""
  signer: str = ""
  is_own: bool = False
  record: dict[str, Any] = {}

  @property
  def is_ours(self) -> bool:
    """Whether pir_jax wrote it, as it states itself."""
    return self.generator.split()[:1] == [_GENERATOR]


def sign(
  file: pathlib.Path,
  source: pathlib.Path,
  record: dict[str, Any],
  key: keys.Key,
  *,
  title: str,
  version: str,
) -> None:
  """Puts a manifest into a finished mp4, and reads it back.

  Args:
    file: of the video; it is replaced by the signed one.
    source: the video that it was made from; a manifest of its own is kept.
    record: of inputs and settings, which anybody can read.
    key: of the user.
    title: name of the output.
    version: of this package.

  Raises:
    InputError: it cannot be signed; the file stays as it was.
  """
  definition = {
    "claim_generator_info": [{"name": _GENERATOR, "version": version}],
    "title": title,
    "assertions": [
      {
        "label": "c2pa.actions",
        "data": {
          "actions": [
            {"action": "c2pa.edited", "digitalSourceType": _SOURCE_TYPE}
          ]
        },
      },
      {"label": _ASSERTION, "data": record},
    ],
  }
  # An empty address of a timestamp server is refused; None is none.
  info = c2pa.C2paSignerInfo("es256", key.chain, key.private, None)
  try:
    with (
      whole_file.written(file) as signed,
      c2pa.Signer.from_info(info) as signer,
      _builder(definition, source) as builder,
    ):
      builder.sign_file(file, signed, signer)
      written = read(signed)
      if written is None or written.state == INVALID:
        raise C2paError(f"it reads back as {written and written.reasons}")
  except (C2paError, FileNotFoundError) as error:
    raise InputError(
      f"{title} cannot be signed ({error}): mend that, or write it without "
      "marks (--mark=none)."
    ) from error


def _builder(definition: dict[str, Any], source: pathlib.Path) -> c2pa.Builder:
  """Returns a builder with the source as what was edited."""
  kind = mimetypes.guess_type(source.name)[0] or _ANY_KIND
  try:
    return _builder_of(definition, source, kind)
  except C2paError:  # It is of another kind than its name: its name is kept.
    return _builder_of(definition, source, _ANY_KIND)


def _builder_of(definition, source, kind) -> c2pa.Builder:
  builder = c2pa.Builder.from_json(definition)
  builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
  ingredient = {"title": source.name, "relationship": "parentOf"}
  with source.open("rb") as file:
    builder.add_ingredient(ingredient, kind, file)
  return builder


def read(file: pathlib.Path) -> Manifest | None:
  """Reads and checks the manifest of a file; None without one."""
  try:
    with c2pa.Reader(str(file)) as reader:
      state, text = reader.get_validation_state(), reader.json()
  except (C2paError.ManifestNotFound, C2paError.NotSupported):
    return None
  except C2paError as error:
    # A container that C2PA does not know, under the name of one that it does,
    # holds no manifest, and so no broken one.
    unknown = isinstance(error, C2paError.Io) or _UNREADABLE in str(error)
    return None if unknown else Manifest(INVALID, (str(error),))
  store = json.loads(text)
  active = store["manifests"][store["active_manifest"]]
  (generator, *_) = active.get("claim_generator_info") or [{}]
  records = [
    each["data"]
    for each in active.get("assertions", [])
    if each["label"] == _ASSERTION
  ]
  failures = store.get("validation_results", {}).get("activeManifest", {})
  states = {"Valid": VALID, "Trusted": TRUSTED}
  return Manifest(
    states.get(str(state), INVALID),
    tuple(each["code"] for each in failures.get("failure", [])),
    " ".join(str(generator.get(x, "")) for x in ("name", "version")).strip(),
    active.get("signature_info", {}).get("common_name", ""),
    state == "Valid" and _is_own(file),
    records[0] if records and isinstance(records[0], dict) else {},
  )


def _is_own(file: pathlib.Path) -> bool:
  """Whether the chain ends at this user's own authority."""
  key = keys.existing()
  if key is None:
    return False
  context = c2pa.Context.from_dict(
    {
      "trust": {"trust_anchors": key.authority.decode()},
      "verify": {"verify_trust": True},
    }
  )
  with context, c2pa.Reader(str(file), context=context) as reader:
    return reader.get_validation_state() == "Trusted"
