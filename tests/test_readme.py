"""What the README says is true: its commands parse, its files exist, its tree and recipes are the project's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

from lalm.cli import app
from lalm.resources import list_shipped

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
TRACKED_FOLDERS = ("lalm", "data_builders", "recipes", "chat_templates", "docker", "tests")

pytestmark = pytest.mark.skipif(not README.is_file(), reason="there is no README.md yet")


def text() -> str:
    return README.read_text(encoding="utf-8") if README.is_file() else ""


def command_lines(program: str) -> list[str]:
    """Every line of a code block, and every inline code, that calls `program`."""
    lines = [line.strip().removeprefix("$ ") for _, block in FENCE.findall(text()) for line in block.splitlines()]
    lines += re.findall(r"(?<!`)`([^`\n]+)`(?!`)", FENCE.sub("", text()))
    found = [part.strip() for line in lines for part in re.split(r"&&|\|", line.partition("  #")[0])]
    return sorted({line for line in found if line.startswith(f"{program} ")})


def tree_block() -> list[str]:
    blocks = [block for _, block in FENCE.findall(text()) if re.search(r"^lalm/", block, re.MULTILINE)]
    assert blocks, "the README shows no file tree (a code block with a line that begins with lalm/)"
    return [line for line in blocks[0].splitlines() if line.strip()]


@pytest.mark.parametrize("line", command_lines("lalm"))
def test_command_of_the_readme_parses(line: str):
    arguments = [word for word in shlex.split(line, comments=True)[1:] if word != "..."]
    command = typer.main.get_command(app)
    context = command.make_context("lalm", [], resilient_parsing=True)
    while hasattr(command, "commands"):
        if not arguments:
            return
        name, command, arguments = command.resolve_command(context, arguments)
        assert command is not None, f"'{line}': no such command"
        if not arguments or any(word.isupper() for word in arguments):
            options = {option for parameter in command.params for option in getattr(parameter, "opts", ())}
            options |= {option for parameter in command.params for option in getattr(parameter, "secondary_opts", ())}
            assert {word for word in arguments if word.startswith("-")} <= options | {"--help"}, line
            return
    command.make_context(name, arguments, parent=context)


@pytest.mark.parametrize("line", command_lines("make"))
def test_make_target_of_the_readme_exists(line: str):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in (
        word for word in shlex.split(line, comments=True)[1:] if "=" not in word and not word.startswith("-")
    ):
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), f"make {target}"


def test_files_that_the_readme_names_exist():
    named = re.findall(rf"(?:{'|'.join(TRACKED_FOLDERS)})/[\w./-]+\.(?:py|yaml|jinja|md)", text())
    missing = sorted({name for name in named if not (ROOT / name).exists()})
    assert not missing


def test_links_lead_somewhere():
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text()) if "://" not in link]
    assert not [link for link in links if link and not (ROOT / link).exists()]


def test_tree_is_the_project():
    """Top entries stand at the margin, those of a folder are indented under it; a line may name several."""
    here, shown = ROOT, set()
    for line in tree_block():
        words = [word for word in re.split(r"\s{2,}", line.strip())[0].split() if word.endswith("/") or "." in word]
        if not line.startswith(" "):
            here = ROOT
        paths = [here / word for word in words]
        for path in paths:
            assert path.exists(), f"the README's tree names {path.relative_to(ROOT)}"
            shown.add(path.relative_to(ROOT).as_posix())
        if not line.startswith(" ") and paths and paths[0].is_dir():
            here = paths[0]
    packages = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "lalm").glob("*/__init__.py")}
    assert packages <= shown, f"the README's tree leaves out {sorted(packages - shown)}"


def test_every_recipe_is_named():
    for name in (Path(file).stem for file in list_shipped("recipes")):
        assert re.search(rf"\b{re.escape(name)}\b", text()), f"the README does not name recipes/{name}.yaml"


def test_python_of_the_readme_compiles_and_imports_public_names():
    import lalm

    for language, block in FENCE.findall(text()):
        if language == "python":
            compile(block, "README.md", "exec")
            for names in re.findall(r"^from lalm import (.+)$", block, re.MULTILINE):
                for name in names.split(","):
                    assert name.strip() in lalm.__all__
