"""Fixtures that every package's tests share, and what decides which tests run here."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import setuptools  # noqa: F401  first, as torch's compiler reads it: after others of the tests it refuses to be imported
import soundfile

from lalm.data.records import Record, write_records
from lalm.recipe.load import load_recipe
from lalm.recipe.schema import Recipe
from lalm.resources import PACKAGE_MODELS, cache_folder

RATE_HZ = 16000
ROOT = Path(__file__).resolve().parent.parent
FROZEN_BEFORE: set[Path] = set()
"""Files of tests of which some ran in this process."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what this machine cannot run, with the reason, and puts slow tests last, of these the longest first."""
    no_models, no_corpora, no_gpu = missing_models(), missing_corpora(), None
    for item in items:
        if mark := item.get_closest_marker("real"):
            needs = mark.args or (("corpora",) if "data_builders" in item.path.parts else ("models",))
            for reason in ("models" in needs and no_models, "corpora" in needs and no_corpora):
                if reason:
                    item.add_marker(pytest.mark.skip(reason=reason))
        if item.get_closest_marker("gpu"):
            no_gpu = missing_gpu() if no_gpu is None else no_gpu
            if no_gpu:
                item.add_marker(pytest.mark.skip(reason=no_gpu))
    items.sort(key=_length)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What stands when the tests of another file begin stays: the collections that every training asks for need not
    look through it. They were a third of the time of those tests, and more after torch's compiler."""
    if item.path not in FROZEN_BEFORE:
        FROZEN_BEFORE.add(item.path)
        gc.collect()
        gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # or what is taken apart at the end of the process says that something is left


def _length(item: pytest.Item) -> tuple[bool, float]:
    slow = item.get_closest_marker("slow")
    return slow is not None, -slow.kwargs.get("seconds", 0) if slow else 0


def missing_models() -> str:
    """Why tests of packaged base models cannot run; empty if they can."""
    missing = [name for name in PACKAGE_MODELS if not (cache_folder() / "models" / name / "source.json").is_file()]
    return f"not in the cache: {', '.join(missing)} (lalm models fetch)" if missing else ""


def missing_corpora() -> str:
    """Why tests of the packaged recordings cannot run; empty if they can."""
    from data_builders.sources import SOURCES, source

    packages = [package.name for name in SOURCES for package in source(name).PACKAGES]
    missing = [name for name in packages if not (cache_folder() / "corpora" / name / "package.json").is_file()]
    return f"not in the cache: {', '.join(missing)} (lalm data fetch quickstart)" if missing else ""


def missing_gpu() -> str:
    """Why tests of a GPU cannot run; empty if they can."""
    import torch

    return "" if torch.cuda.is_available() else "needs a CUDA device"


@pytest.fixture(autouse=True)
def own_cache(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> Path:
    """A cache folder of the test's own, so that none writes into the user's; tests marked `real` use the user's."""
    if request.node.get_closest_marker("real"):
        return cache_folder()
    folder = tmp_path_factory.getbasetemp() / "caches" / str(abs(hash(request.node.nodeid)))
    monkeypatch.setenv("LALM_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def exact_products(request: pytest.FixtureRequest) -> None:
    """On a GPU, float32 is multiplied as such: a training before, in the same process, has turned that off."""
    if request.node.get_closest_marker("gpu"):
        import torch

        torch.backends.fp32_precision = "ieee"


@pytest.fixture
def tiny_data(tmp_path: Path) -> Path:
    """A folder with train.jsonl: eight clips of tones and noise, a question on each, the last two held out."""
    folder = tmp_path / "tiny_data"
    random = np.random.default_rng(0)
    records = []
    for number in range(8):
        time = np.arange(int(RATE_HZ * (0.4 + 0.1 * number))) / RATE_HZ
        is_tone = number % 2 == 0
        wave = np.sin(2 * np.pi * 300 * (1 + number) * time) if is_tone else random.uniform(-1, 1, len(time))
        (folder / "clips").mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / "clips" / f"{number}.wav", (0.3 * wave).astype(np.float32), RATE_HZ)
        records.append(
            Record(
                id=f"r{number}",
                audio=(f"clips/{number}.wav",),
                turns=(
                    {"role": "user", "content": "What is heard?"},
                    {"role": "assistant", "content": "a tone" if is_tone else "noise"},
                ),
                task="sound_name",
                split="test" if number >= 6 else "train",
            )
        )
    write_records(folder / "train.jsonl", records)
    return folder


@pytest.fixture
def tiny_recipe(tiny_data: Path, tmp_path: Path) -> Recipe:
    """recipes/tiny.yaml on `tiny_data`, with a run folder of the test's own."""
    return load_recipe("tiny", [f"data.folder={tiny_data}", f"output.folder={tmp_path / 'run'}"])


@pytest.fixture
def torch_compiles() -> None:
    """Skips the test where torch cannot compile (no C++ compiler, no headers of Python), with its reason."""
    from lalm.model.compiled_layers import why_no_compiler

    if (reason := why_no_compiler()) is not None:
        pytest.skip(reason)
