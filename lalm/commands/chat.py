"""`lalm chat`: ask a trained run about clips, one question or a conversation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lalm.commands.arguments import DeviceOption, RunArgument


def chat(
    run: RunArgument,
    audio: Annotated[list[Path] | None, typer.Option("-a", "--audio", help="A clip to ask about; repeatable.")] = None,
    question: Annotated[str | None, typer.Option("-q", "--question", help="Answer this one question and exit.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --question: print one JSON object.")] = False,
    lora_scale: Annotated[
        float | None,
        typer.Option(min=0.0, help="A factor on the adapter: 0 is the plain language model, 1 as trained."),
    ] = None,
    device: DeviceOption = None,
) -> None:
    """Chat with a run about audio. Without --question a conversation opens; /help in it lists its commands."""
    from lalm.serving.terminal import chat as chat_in_terminal

    chat_in_terminal(run, audio or [], question=question, as_json=as_json, lora_scale=lora_scale, device=device)
