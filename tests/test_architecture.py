"""Which way imports run, and what imports no torch: the floors of the design, read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

FLOORS = {
    "lalm.errors": 0,
    "lalm.lean_imports": 0,
    "lalm.tables": 0,
    "lalm.files": 1,
    "lalm.data.records": 1,
    "lalm.ctranslate2": 1,
    "lalm.package_models": 1,
    "lalm.audio": 2,
    "lalm.resources": 2,
    "lalm.recipe": 3,
    "lalm.processing": 4,
    "lalm.encoders": 4,
    "lalm.projectors": 4,
    "lalm.data": 5,
    "lalm.model": 5,
    "lalm.inference": 6,
    "lalm.conversion": 6,
    "lalm.auto": 6,
    "lalm": 7,
    "lalm.training": 8,
    "lalm.evaluation": 8,
    "lalm.serving": 8,
    "data_builders": 8,
    "lalm.bench": 9,
    "lalm.commands": 10,
    "lalm.cli": 11,
    "lalm.__main__": 12,
}
"""A file imports from lower floors only; `lalm` itself is the public names, which load on first use."""

FORBIDDEN = {
    "lalm.model": {"lalm.data"},
    "lalm.data": {"lalm.projectors"},
    "lalm.inference": {"lalm.data", "lalm.encoders", "lalm.projectors"},
    "lalm.serving": {"lalm.model", "lalm.data", "lalm.encoders", "lalm.projectors"},
    "lalm.commands": {"data_builders"},
}
"""Arrows that would run down and still are not wanted."""

PROCESSOR_BUILDERS = {"lalm/model/build.py", "lalm/model/checkpoint.py", "lalm/model/plan.py"}
"""Where a model gets its processor; the rest of `model` knows nothing of text."""

DATA_BUILDERS_USE = {"lalm.errors", "lalm.files", "lalm.tables", "lalm.data.records", "lalm.audio", "lalm.resources"}

LISTENER = "data_builders/llm_writer/own_model.py"
"""The one door from the data builders to `lalm.inference`: a trained run that labels clips."""

WRAPPERS = {
    "peft": {"lalm/model/decoder.py", "lalm/model/narrow_lora.py"},
    "bitsandbytes": {"lalm/model/decoder.py"},
    "deepspeed": {"lalm/training/deepspeed.py"},
}
"""The only files that touch a package, so that a break of it is a fix in one place."""

STATES_ARE_NAMED_IN = "lalm/data/state_cache.py"
"""Reads the version of transformers, which encoder states depend on, and nothing else of it."""

NO_TRANSFORMERS = (
    "lalm.audio",
    "lalm.data",
    "lalm.recipe",
    "lalm.evaluation",
    "lalm.serving",
    "lalm.commands",
    "lalm.cli",
)
"""What follows a break of transformers is elsewhere."""

TORCH_FREE = (
    "lalm",
    "lalm.cli",
    "lalm.errors",
    "lalm.files",
    "lalm.resources",
    "lalm.audio.io",
    "lalm.audio.lengths",
    "lalm.data.records",
)
"""With every module of `lalm.recipe`, `lalm.commands` and `data_builders`."""


def source_files() -> list[Path]:
    return sorted(path for folder in ("lalm", "data_builders") for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported_modules(path: Path) -> Iterator[str]:
    """Dotted names of everything that a file imports, wherever in the file; names of a package count with it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def unit_of(module: str) -> str | None:
    """The longest entry of `FLOORS` that a module is or lies in; None for other people's."""
    parts = module.split(".")
    if parts[0] not in ("lalm", "data_builders"):
        return None
    names = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next(name for name in names if name in FLOORS)


def arrows(path: Path) -> set[tuple[str, str]]:
    source = unit_of(module_name(path))
    return {(source, target) for name in imported_modules(path) if (target := unit_of(name)) and target != source}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_every_package_has_a_floor():
    for path in source_files():
        name = module_name(path)
        assert unit_of(name) != "lalm" or name == "lalm", f"{name}: add its package to FLOORS"


def test_imports_run_down():
    wrong = [
        f"{relative(path)} ({source}, floor {FLOORS[source]}) imports {target} (floor {FLOORS[target]})"
        for path in source_files()
        if path != ROOT / "lalm/__init__.py"
        for source, target in arrows(path)
        if FLOORS[target] >= FLOORS[source]
    ]
    assert not wrong, "\n".join(wrong)


def test_packages_that_never_meet():
    wrong = [
        f"{relative(path)} imports {target}"
        for path in source_files()
        for source, target in arrows(path)
        if target in FORBIDDEN.get(source, ())
        or (source == "data_builders" and target not in DATA_BUILDERS_USE and relative(path) != LISTENER)
        or (relative(path) == LISTENER and target not in DATA_BUILDERS_USE | {"lalm.inference"})
        or (target == "data_builders" and source != "lalm.cli")
        or (source == "lalm.model" and target == "lalm.processing" and relative(path) not in PROCESSOR_BUILDERS)
    ]
    assert not wrong, "\n".join(wrong)


def test_encoders_and_projectors_meet_only_in_model():
    for path in source_files():
        targets = {target for _, target in arrows(path)}
        assert unit_of(module_name(path)) == "lalm.model" or not {"lalm.encoders", "lalm.projectors"} <= targets, path


@pytest.mark.parametrize("package", WRAPPERS)
def test_a_package_is_touched_in_few_files(package: str):
    touching = {
        relative(path)
        for path in source_files()
        if any(name.split(".")[0] == package for name in imported_modules(path))
    }
    assert touching <= WRAPPERS[package]


def test_transformers_stays_behind_its_wrappers():
    wrong = [
        relative(path)
        for path in source_files()
        if unit_of(module_name(path)) in NO_TRANSFORMERS
        and relative(path) != STATES_ARE_NAMED_IN
        and any(name.split(".")[0] == "transformers" for name in imported_modules(path))
    ]
    assert not wrong, wrong


def test_nothing_is_unpickled_and_no_remote_code_is_run():
    for path in source_files():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not {name.split(".")[0] for name in imported_modules(path)} & {"pickle", "dill", "joblib"}, path
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "trust_remote_code":
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is False, path
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                assert given.get("weights_only") == "True", f"{path}: torch.load without weights_only=True"


def test_these_import_no_torch():
    packages = ("lalm.recipe", "lalm.commands", "data_builders")
    modules = [*TORCH_FREE, *(name for name in map(module_name, source_files()) if name.startswith(packages))]
    code = (
        "import importlib, sys\n"
        f"for name in {modules}:\n"
        "    importlib.import_module(name)\n"
        "    heavy = {'torch', 'transformers', 'peft', 'datasets'} & set(sys.modules)\n"
        "    assert not heavy, f'{name} imports {sorted(heavy)}'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_package_is_installed():
    listed = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for path in source_files():
        assert f'"{module_name(path.parent / "__init__.py")}"' in listed, f"{path.parent}: add it to pyproject.toml"
