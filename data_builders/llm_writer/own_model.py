"""A trained run of this project as the listener: the one door from the data builders to `lalm.inference`."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from data_builders.llm_writer.helpers import Helper
from lalm.errors import DataError
from lalm.resources import file_fingerprint

if TYPE_CHECKING:
    from lalm.inference.session import Session


def own_model_helper(run: Path) -> Helper:
    """A listener that asks a run about one clip, each question by itself. Its weights load with the first clip.

    Raises:
        DataError: if there is no such folder.
        CheckpointError: at the first clip, if the folder is incomplete or a base model differs.
    """
    if not run.is_dir():
        raise DataError(f"--labeller {run}: no such run folder. Name one that `lalm train` wrote.")
    fingerprint = file_fingerprint(run)  # A run trained again under the same name is another listener.
    lock = threading.Lock()
    opened: list[Session] = []

    def hear(clip: Path, question: str) -> str:
        from lalm.inference.session import load_session

        with lock:  # One model, one question at a time.
            if not opened:
                opened.append(load_session(run))
            [session] = opened
            session.reset()
            session.add_audio(clip)
            return session.ask(question).text

    return Helper(f"lalm/{run.name}/{fingerprint[:16]}", hear)
