"""Chat about audio in the terminal: one question and exit, or a conversation with commands.

Answers stream as they are written. Works with a person at the keyboard and with a pipe: then every line of standard
input is a question or a command, and the end of the input ends the conversation.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from rich.console import Console

from lalm.audio.io import is_silent
from lalm.errors import LalmError
from lalm.inference.session import Answer, ChatSession, Clip, load_session
from lalm.serving import microphone

PROMPT = "> "
HELP = {
    "/audio FILE": "add a clip; the next question is about it",
    "/record [SECONDS]": f"add a clip from the microphone ({microphone.DEFAULT_SECONDS:g} seconds by default)",
    "/reset": "forget all questions and clips",
    "/save FILE": "write the conversation as JSON",
    "/help": "show this list",
    "/quit": "leave (as Ctrl-D does)",
}


def chat(
    run: Path,
    audio: Iterable[Path] = (),
    question: str | None = None,
    as_json: bool = False,
    lora_scale: float | None = None,
    device: str | None = None,
) -> None:
    """What `lalm chat` does.

    Args:
        run: folder of a trained run.
        audio: clips that the first question is about.
        question: answer this and return; without it, converse on standard input.
        as_json: print `{"answer", "audio_seconds", "tokens", "seconds"}` and nothing else; needs `question`.
        lora_scale: a factor on the adapter instead of the recipe's.

    Raises:
        LalmError: if `as_json` is set without a question, the run cannot be loaded or, with a question, anything
            about the clips or the question is wrong. In a conversation such errors are printed and it goes on.
    """
    if as_json and question is None:
        raise LalmError("--json prints one answer and needs --question. Add --question '...', or leave --json out.")
    session = load_session(run, device=device, lora_scale=lora_scale)
    console = Console(highlight=False)
    if question is None:
        terminal = TerminalChat(session, console)
        for path in audio:
            terminal.handle(f"/audio {path}")
        terminal.run(read_lines(console))
        return
    for path in audio:
        session.add_audio(path)
    if as_json:
        sys.stdout.write(answer_json(session.ask(question)) + "\n")
    else:
        print_answer(session, question, console)


def answer_json(answer: Answer) -> str:
    """The answer as the one JSON object that `--json` prints."""
    return json.dumps(
        {
            "answer": answer.text,
            "audio_seconds": round(answer.audio_seconds, 3),
            "tokens": answer.tokens,
            "seconds": round(answer.seconds, 3),
        },
        ensure_ascii=False,
    )


def print_answer(session: ChatSession, question: str, console: Console) -> Answer:
    """Asks and prints the answer while it is written."""

    def show(piece: str) -> None:
        console.out(piece, end="", highlight=False)
        console.file.flush()

    answer = session.ask(question, on_text=show)
    if answer.text:
        console.out("")
    else:
        console.print("[dim](the model gave no answer)[/dim]")
    return answer


def read_lines(console: Console) -> Iterator[str]:
    """Lines of standard input without their end; asks for them with a prompt, and with editing, at a terminal only."""
    if not sys.stdin.isatty():
        yield from (line.rstrip("\r\n") for line in sys.stdin)
        return
    with contextlib.suppress(ImportError):  # Python for Windows has none; typing works all the same.
        import readline  # noqa: F401  importing it gives input() its editing keys and history
    while True:
        try:
            line = input(PROMPT)
        except EOFError:
            console.print()
            return
        except KeyboardInterrupt:
            console.print("\n[dim]/quit or Ctrl-D leaves[/dim]")
            continue
        yield line


class TerminalChat:
    """Carries out lines: commands, and questions to one session."""

    def __init__(self, session: ChatSession, console: Console):
        self.session = session
        self.console = console
        self.is_over = False
        self._commands: dict[str, Callable[[str], None]] = {
            "/audio": self._audio,
            "/record": self._record,
            "/reset": self._reset,
            "/save": self._save,
            "/help": self._help,
            "/quit": self._quit,
        }

    def run(self, lines: Iterable[str]) -> None:
        """Handles lines until they end or one of them is /quit."""
        if self.console.is_terminal:
            self.console.print("[dim]Ask about the audio. /audio FILE adds a clip, /help lists the commands.[/dim]")
        for line in lines:
            self.handle(line)
            if self.is_over:
                return

    def handle(self, line: str) -> None:
        """One command or question. What is wrong with it is printed, and the conversation stays as it was."""
        line = line.strip()
        if not line:
            return
        try:
            if line.startswith("/"):
                name, _, argument = line.partition(" ")
                self._commands.get(name, lambda _: self._unknown(name))(argument.strip())
            else:
                self._ask(line)
        except (LalmError, OSError) as error:
            self._error(str(error))
        except KeyboardInterrupt:
            self.console.print("\n[dim]stopped; the conversation is as it was before[/dim]")

    def _ask(self, question: str) -> None:
        answer = print_answer(self.session, question, self.console)
        if self.console.is_terminal:
            self.console.print(
                f"[dim]{answer.audio_seconds:.1f} s of audio, {answer.tokens} tokens in {answer.seconds:.1f} s[/dim]"
            )

    def _audio(self, argument: str) -> None:
        if not argument:
            raise LalmError("/audio needs a file: /audio FILE")
        self._added(self.session.add_audio(Path(argument.strip("'\"")).expanduser()))

    def _record(self, argument: str) -> None:
        try:
            seconds = float(argument) if argument else microphone.DEFAULT_SECONDS
        except ValueError:
            raise LalmError(f"/record takes a number of seconds, got {argument!r}") from None
        self.console.print(f"[dim]recording {seconds:g} s ...[/dim]")
        samples = microphone.record(seconds, self.session.processor.sampling_rate)
        self._added(self.session.add_audio(samples, name="microphone"))

    def _added(self, clip: Clip) -> None:
        note = ", which is silent" if is_silent(clip.waveform) else ""
        self._say(f"added {clip.name}: {clip.seconds:.1f} s{note}")

    def _reset(self, _: str) -> None:
        self.session.reset()
        self._say("a new conversation, without clips")

    def _save(self, argument: str) -> None:
        if not argument:
            raise LalmError("/save needs a file: /save FILE")
        path = Path(argument.strip("'\"")).expanduser()
        self.session.save(path)
        self._say(f"saved to {path}")

    def _help(self, _: str) -> None:
        width = max(map(len, HELP))
        for usage, meaning in HELP.items():
            self._say(f"{usage:<{width}}  {meaning}")

    def _quit(self, _: str) -> None:
        self.is_over = True

    def _unknown(self, name: str) -> None:
        near = difflib.get_close_matches(name, self._commands, n=1)
        hint = f"Did you mean {near[0]}?" if near else "/help lists the commands."
        self._error(f"unknown command {name}. {hint}")

    def _say(self, text: str) -> None:
        """Plain text: file names may hold what rich would read as markup."""
        self.console.print(text, style="dim", markup=False, soft_wrap=True)

    def _error(self, text: str) -> None:
        self.console.print(f"error: {text}", style="red", markup=False, soft_wrap=True)
