"""What a recipe may need beyond a text model: somebody who hears, somebody who compares, somebody who speaks.

Each is a plain function that the caller gives. What it returned is kept in the journal like a reply.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lalm.errors import DataError

Hear = Callable[[Path, str], str]
"""A clip and a question -> what an audio-language model answers."""
Similarity = Callable[[Path, str], float]
"""A clip and a caption -> how well they fit, as CLAP's cosine: higher is better."""
Speak = Callable[[str, Path], None]
"""Says a text into a new WAV file."""


@dataclass(frozen=True)
class Helper:
    """A function with the name that rows and the journal know it by: the model's name and version."""

    name: str
    call: Callable


@dataclass(frozen=True)
class Helpers:
    """What is at hand. A recipe that needs what is None says so before anything is asked."""

    hear: Helper | None = None
    similarity: Helper | None = None
    speak: Helper | None = None


def espeak_helper(voice: str = "en", words_per_minute: int = 160) -> Helper:
    """Speech by the program espeak-ng.

    Raises:
        DataError: where the program is not installed.
    """
    program = shutil.which("espeak-ng")
    if program is None:
        raise DataError(
            "espeak-ng: no such program here. Install it (apt-get install espeak-ng) to speak instructions."
        )

    def speak(text: str, path: Path) -> None:
        command = [program, "-v", voice, "-s", str(words_per_minute), "-w", str(path), "--stdin"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode or not path.is_file():
            raise DataError(f"espeak-ng failed on '{text[:60]}': {done.stderr.strip() or 'it wrote no file'}.")

    return Helper(f"espeak-ng/{voice}/{words_per_minute}", speak)
