"""What a process that builds models without weights never uses, left out of what torch, transformers and peft import.

Reading torch and transformers is most of the time of `lalm check`. Of its six seconds 1.4 went to libraries that peft
and transformers import wherever they are installed, 1.3 to torch's compiler, of which transformers wants three
decorators, and 0.3 to tensors that are dealt out over processes. Only for a process that does nothing else: what is
imported here stays as it is until the end.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

UNUSED = ("bitsandbytes", "scipy", "triton")
COMPILER = "torch._dynamo"
ALONE = ("config",)
"""Modules of the compiler that are asked for without it and do not want the rest."""


def import_less() -> None:
    """Called before torch, once."""
    sys.modules.update(dict.fromkeys(UNUSED))  # type: ignore[arg-type]
    if COMPILER not in sys.modules and (torch := find_spec("torch")) and torch.submodule_search_locations:
        sys.modules[COMPILER] = IdleCompiler(Path(torch.submodule_search_locations[0]) / "_dynamo")
    sys.meta_path.insert(0, OneProcess())


class OneProcess(MetaPathFinder):
    """Tells transformers, as it is imported, that there are no other processes: else it imports tensors that are dealt
    out over them. Finds nothing itself."""

    def find_spec(self, name: str, *_: Any) -> None:
        if name == "transformers":
            sys.meta_path.remove(self)
            importlib.import_module("torch.distributed").is_available = lambda: False  # type: ignore[attr-defined]


class IdleCompiler(ModuleType):
    """Stands for `torch._dynamo` until something other than its marks on functions, or `ALONE`, is asked for.

    The marks say how a function is to be compiled; where nothing is compiled they are the function itself. For
    anything else the real module takes this one's place.
    """

    def __init__(self, folder: Path):
        super().__init__(COMPILER)
        self.__path__ = [str(folder)]
        self.__spec__ = ModuleSpec(COMPILER, None, is_package=True)

    @staticmethod
    def disable(function: Any = None, *_: Any, **__: Any) -> Any:
        """As a decorator with and without arguments."""
        return (lambda function: function) if function is None else function

    allow_in_graph = assume_constant_result = disable

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ALONE:
            return importlib.import_module(f"{COMPILER}.{name}")
        if sys.modules.get(COMPILER) is self:
            del sys.modules[COMPILER]
        real = importlib.import_module(COMPILER)
        for child, module in vars(self).items():
            if isinstance(module, ModuleType):
                setattr(real, child, module)
        return getattr(real, name)
