"""Prompts of the writing recipes: `<name>.v<version>.jinja`, each with a block `system` and a block `user`.

A prompt that has been used is not edited: a new wording is a new version, because rows name the version they came from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from lalm.errors import DataError

BLOCKS = ("system", "user")
_FILE = re.compile(r"(?P<name>\w+)\.v(?P<version>\d+)\.jinja")


@dataclass(frozen=True)
class Prompt:
    """One version of one prompt."""

    name: str
    version: int
    template: jinja2.Template

    @property
    def title(self) -> str:
        """name@version, as provenance states it."""
        return f"{self.name}@{self.version}"

    def messages(self, **slots: Any) -> tuple[tuple[str, str], ...]:
        """The system and the user message.

        Raises:
            DataError: if the prompt uses a slot that it is not given.
        """
        try:
            context = self.template.new_context(slots)
            texts = ["".join(self.template.blocks[block](context)) for block in BLOCKS]
        except jinja2.UndefinedError as error:
            raise DataError(
                f"prompts/{self.name}.v{self.version}.jinja: {error.message}; given: {sorted(slots)}."
            ) from None
        return tuple((role, _tidied(text)) for role, text in zip(BLOCKS, texts, strict=True))


def list_prompts() -> dict[str, list[int]]:
    """Versions of every prompt by name."""
    found: dict[str, list[int]] = {}
    for file in resources.files(__package__).iterdir():
        if match := _FILE.fullmatch(file.name):
            found.setdefault(match["name"], []).append(int(match["version"]))
    return {name: sorted(versions) for name, versions in sorted(found.items())}


@cache
def load_prompt(name: str, version: int | None = None) -> Prompt:
    """A prompt, its newest version where none is asked for.

    Raises:
        DataError: for an unknown name or version, or a file without the two blocks.
    """
    known = list_prompts()
    if name not in known:
        raise DataError(f"prompt '{name}' is not known. There are: {', '.join(known)}.")
    version = known[name][-1] if version is None else version
    if version not in known[name]:
        raise DataError(f"prompt '{name}' has no version {version}. There are: {known[name]}.")
    template = _environment().get_template(f"{name}.v{version}.jinja")
    if missing := [block for block in BLOCKS if block not in template.blocks]:
        raise DataError(f"prompts/{name}.v{version}.jinja: lacks the block(s) {missing}.")
    return Prompt(name, version, template)


@cache
def _environment() -> jinja2.Environment:
    folder = resources.files(__package__)

    def read(name: str) -> str | None:
        file = folder / name
        return file.read_text(encoding="utf-8") if file.is_file() else None

    return ImmutableSandboxedEnvironment(
        loader=jinja2.FunctionLoader(read), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _tidied(text: str) -> str:
    """Without the blank lines that conditions leave behind."""
    return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in text.strip().splitlines()))
