"""`lalm` gives a language model ears: a frozen audio encoder, a small projector, a LoRA-adapted decoder.

The public classes are imported on first use, so that `import lalm` stays fast and needs no torch. Importing one of
them registers all three with transformers' Auto classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lalm.model.configuration import LalmConfig
    from lalm.model.modeling import LalmForConditionalGeneration
    from lalm.processing.processor import LalmProcessor

__version__ = "0.1.0"
__all__ = ["LalmConfig", "LalmForConditionalGeneration", "LalmProcessor", "__version__"]

_PUBLIC = ("LalmConfig", "LalmForConditionalGeneration", "LalmProcessor")


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        from lalm import auto

        return getattr(auto, name)
    raise AttributeError(f"module 'lalm' has no attribute {name!r}")
