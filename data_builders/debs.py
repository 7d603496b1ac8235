"""Debian packages as a source of recordings: fetched by name with `apt-get download`, opened without dpkg.

A `.deb` is an `ar` archive whose member `data.tar.{xz,gz,zst}` holds the files. Fetching needs no root once the package
lists exist. Everything is kept under `cache_folder()/corpora`, so a second run downloads nothing and opens nothing:

    corpora/debs/<package>_<version>_all.deb     as downloaded
    corpora/<package>/                           the members asked for
    corpora/<package>/package.json               name, version, sha256, members
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from lalm.errors import DataError, MissingPackageError
from lalm.resources import cache_folder

AR_MAGIC = b"!<arch>\n"
AR_HEADER_BYTES = 60
MAX_MEMBER_BYTES = 256 * 2**20
"""No recording of these corpora comes near it; a member that says it is larger is not read."""
RECORD_NAME = "package.json"
INSTEAD = (
    "Instead, put recordings of your own into a CSV of file, question, answer and run `lalm data import`, "
    "or use the Docker image, which is a Debian with apt."
)

Report = Callable[[str], None]


@dataclass(frozen=True)
class Package:
    """One Debian package and what is wanted of it.

    `wanted` are suffixes of member paths. `sha256` maps the versions whose content was checked to the digest of their
    `.deb`; another version is used with a warning, the same version with another digest is refused.
    """

    name: str
    wanted: tuple[str, ...]
    sha256: dict[str, str]


@dataclass(frozen=True)
class Fetched:
    """An opened package: `folder` holds its members under their paths in the package."""

    name: str
    version: str
    sha256: str
    folder: Path
    members: tuple[str, ...]


def fetch_package(package: Package, *, report: Report = print) -> Fetched:
    """Downloads and opens one package, or finds it where an earlier run left it.

    Raises:
        DataError: where apt is absent or knows no such package, or the archive is damaged or not the pinned one.
    """
    folder = cache_folder() / "corpora" / package.name
    done = _opened(folder, package)
    if done:
        return done
    archive = _downloaded(package) or _download(package, report)
    version = archive.stem.split("_")[1].replace("%3a", ":")
    digest = _sha256(archive)
    pinned = package.sha256.get(version)
    if pinned and pinned != digest:
        archive.unlink()
        raise DataError(
            f"{archive.name}: sha256 {digest} is not the {pinned} on record. The download was damaged; "
            "it is deleted: run the command again."
        )
    if not pinned:
        report(
            f"{package.name}: version {version} is newer than the ones checked ({', '.join(package.sha256)}); going on"
        )
    report(f"{package.name} {version}: opening")
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{package.name}."))
    try:
        members = extract_deb(archive, fresh, package.wanted)
        if not members:
            raise DataError(f"{archive.name}: holds no file that ends with {' or '.join(package.wanted)}.")
        record = {
            "name": package.name,
            "version": version,
            "sha256": digest,
            "wanted": list(package.wanted),
            "members": members,
        }
        (fresh / RECORD_NAME).write_text(json.dumps(record, indent=1), encoding="utf-8")
        fresh.chmod(0o755)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return Fetched(package.name, version, digest, folder, tuple(members))


def extract_deb(archive: Path, folder: Path, wanted: tuple[str, ...]) -> list[str]:
    """Writes the wanted regular files of a `.deb` under `folder` and returns their paths in it, sorted.

    Links and devices are skipped; a path that leaves the folder is refused.

    Raises:
        DataError: for what is no `.deb`, is cut short, or tries to write outside the folder.
    """
    name, data = _data_member(archive)
    members = []
    try:
        with tarfile.open(fileobj=io.BytesIO(_decompressed(name, data)), mode="r:*") as tar:
            for item in tar:
                path = _safe_path(item.name, archive)
                if not item.isreg() or not str(path).endswith(wanted):
                    continue
                if item.size > MAX_MEMBER_BYTES:
                    raise DataError(
                        f"{archive.name}: {item.name} says it has {item.size} bytes; at most {MAX_MEMBER_BYTES}."
                    )
                source = tar.extractfile(item)
                assert source is not None
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as out:
                    shutil.copyfileobj(source, out)
                members.append(str(path))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{archive.name}: {name} cannot be read ({error}). Delete {archive} and run again.") from error
    return sorted(members)


def read_ar(archive: Path) -> Iterator[tuple[str, bytes]]:
    """The members of an `ar` archive as (name, content), in order.

    Raises:
        DataError: for a file that is no `ar` archive or is cut short.
    """
    with archive.open("rb") as file:
        if file.read(len(AR_MAGIC)) != AR_MAGIC:
            raise DataError(f"{archive}: is not a Debian package (no 'ar' archive). Delete it and run again.")
        while header := file.read(AR_HEADER_BYTES):
            try:
                if len(header) < AR_HEADER_BYTES or header[58:60] != b"`\n":
                    raise ValueError
                name, size = header[:16].decode().strip().rstrip("/"), int(header[48:58])
            except ValueError:
                raise DataError(f"{archive}: is cut short or damaged. Delete it and run again.") from None
            content = file.read(size)
            if len(content) < size:
                raise DataError(f"{archive}: is cut short in '{name}'. Delete it and run again.")
            file.seek(size % 2, os.SEEK_CUR)
            yield name, content


def _data_member(archive: Path) -> tuple[str, bytes]:
    for name, content in read_ar(archive):
        if name.startswith("data.tar"):
            return name, content
    raise DataError(f"{archive}: is not a Debian package (it has no data.tar).")


def _decompressed(name: str, data: bytes) -> bytes:
    """tarfile opens xz, gz, bz2 and plain itself; zstd needs its package before Python 3.14."""
    if not name.endswith(".zst"):
        return data
    try:
        import zstandard
    except ImportError:
        raise MissingPackageError("zstandard", "A package compressed with zstd", "data") from None
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(data)) as stream:
        return stream.read()


def _safe_path(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise DataError(f"{archive.name}: the member '{name}' would be written outside its folder. Not opened.")
    return path


def _opened(folder: Path, package: Package) -> Fetched | None:
    """The package as an earlier run opened it, if every file of its record is still there."""
    try:
        record = json.loads((folder / RECORD_NAME).read_text(encoding="utf-8"))
        whole = record["wanted"] == list(package.wanted) and all(
            (folder / name).is_file() for name in record["members"]
        )
        return (
            Fetched(record["name"], record["version"], record["sha256"], folder, tuple(record["members"]))
            if whole
            else None
        )
    except (OSError, ValueError, KeyError):
        return None


def _downloaded(package: Package) -> Path | None:
    found = sorted((cache_folder() / "corpora" / "debs").glob(f"{package.name}_*.deb"))
    return found[-1] if found else None


def _download(package: Package, report: Report) -> Path:
    """`apt-get download` into a folder of its own, so that a killed download leaves no half of a file behind."""
    apt = shutil.which("apt-get")
    if apt is None:
        raise DataError(f"{package.name}: this machine has no apt-get, which fetches the recordings. {INSTEAD}")
    store = cache_folder() / "corpora" / "debs"
    store.mkdir(parents=True, exist_ok=True)
    report(f"{package.name}: downloading")
    with tempfile.TemporaryDirectory(dir=store, prefix=".download-") as scratch:
        result = _apt(apt, ["download", package.name], scratch)
        if result.returncode and hasattr(os, "geteuid") and os.geteuid() == 0:
            report("refreshing the package lists (apt-get update)")
            _apt(apt, ["update"], scratch)
            result = _apt(apt, ["download", package.name], scratch)
        found = sorted(Path(scratch).glob("*.deb"))
        if result.returncode or not found:
            said = (result.stderr or result.stdout).strip().splitlines()
            raise DataError(
                f"{package.name}: apt-get download failed ({said[-1] if said else 'no message'}). If the package "
                f"lists are missing or old, run `apt-get update` as root and try again. {INSTEAD}"
            )
        target = store / found[0].name
        os.replace(found[0], target)
    return target


def _apt(apt: str, arguments: list[str], folder: str) -> subprocess.CompletedProcess[str]:
    # As root apt drops to the user _apt, which may not write here and then only warns; this spares the warning.
    options = ["-o", "APT::Sandbox::User=root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    return subprocess.run(
        [apt, *options, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def describe(fetched: Fetched) -> dict[str, object]:
    """What a manifest records of a package."""
    record = asdict(fetched)
    return {
        "name": record["name"],
        "version": record["version"],
        "sha256": record["sha256"],
        "files": len(fetched.members),
    }
