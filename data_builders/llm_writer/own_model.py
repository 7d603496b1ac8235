"""A trained run of this project as a listener: the one door from the data builders to `lalm.inference`.

Imported when the first clip is heard, because it loads torch.
"""

from __future__ import annotations

from pathlib import Path

from data_builders.llm_writer.helpers import Hear
from lalm.inference.session import load_session


def open_run(run: Path) -> Hear:
    """A function that asks the run about one clip, each question by itself.

    Raises:
        CheckpointError: if the run folder is incomplete, or a base model differs from the one it was trained on.
    """
    session = load_session(run)

    def hear(clip: Path, question: str) -> str:
        session.reset()
        session.add_audio(clip)
        return session.ask(question).text

    return hear
