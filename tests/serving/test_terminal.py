"""The terminal chat over a scripted session: commands, errors that do not end it, and what is printed."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest
from rich.console import Console

from lalm.errors import AudioError, LalmError
from lalm.inference.session import Answer, Clip
from lalm.serving import microphone, terminal
from lalm.serving.terminal import TerminalChat, answer_json, chat, read_lines


class ScriptedSession:
    """Answers every question with a fixed text in pieces, and notes what it was asked to do."""

    class processor:
        sampling_rate = 16000

    def __init__(self, text="A [bold]dog[/bold] :smile: barks."):
        self.text, self.done = text, []

    def add_audio(self, audio, name=None):
        if isinstance(audio, np.ndarray):
            self.done.append(("array", audio.shape))
            return Clip(name, audio, len(audio) / 16000, "")
        if "bad" in str(audio):
            raise AudioError(f"{audio}: cannot be decoded [truncated]")
        self.done.append(("audio", str(audio)))
        loud = 0.0 if "silent" in str(audio) else 0.5
        return Clip(str(audio), np.full(16000, loud, np.float32), 1.0, "")

    def ask(self, question, on_text=None):
        self.done.append(("ask", question))
        if on_text is not None:
            for piece in self.text:
                on_text(piece)
        return Answer(self.text, 1.23456, 7, 0.98765, 0.1)

    def reset(self):
        self.done.append(("reset",))

    def save(self, path):
        if "no_folder" in str(path):
            raise PermissionError(f"[Errno 13] Permission denied: '{path}'")
        self.done.append(("save", str(path)))


@pytest.fixture
def session(monkeypatch):
    session = ScriptedSession()
    session.loaded_with = []

    def load(run, device=None, lora_scale=None):
        session.loaded_with.append((run, lora_scale))
        return session

    monkeypatch.setattr(terminal, "load_session", load)
    return session


def converse(session, *lines):
    """What a conversation of these lines prints."""
    console = Console(file=io.StringIO(), highlight=False, width=200)
    TerminalChat(session, console).run(lines)
    return console.file.getvalue()


def test_a_conversation(session, tmp_path):
    path = tmp_path / "my clip.wav"
    out = converse(session, f"/audio {path}", "What is it?", "", "/save chat.json", "/reset", "/quit", "unheard")
    assert session.done == [("audio", str(path)), ("ask", "What is it?"), ("save", "chat.json"), ("reset",)]
    assert "my clip.wav: 1.0 s" in out
    assert session.text in out, "an answer is no markup"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/audio bad.wav", "error: bad.wav: cannot be decoded [truncated]"),
        ("/audio", "error: /audio needs a file"),
        ("/save", "error: /save needs a file"),
        ("/save no_folder/x", "error: [Errno 13] Permission denied: 'no_folder/x'"),
        ("/record ten", "error: /record takes a number of seconds, got 'ten'"),
        ("/record -1", "error: cannot record -1 s"),
        ("/adio x.wav", "error: unknown command /adio. Did you mean /audio?"),
        ("/rest", "Did you mean /reset?"),
        ("/xyzzy", "error: unknown command /xyzzy. /help lists the commands."),
    ],
)
def test_errors_are_one_line_and_the_conversation_goes_on(session, line, message):
    out = converse(session, line, "still there?")
    assert message in out
    assert session.done == [("ask", "still there?")]


def test_help_lists_every_command(session):
    out = converse(session, "/help")
    commands = TerminalChat(session, Console(file=io.StringIO()))._commands
    assert {usage.split()[0] for usage in terminal.HELP} == set(commands)
    assert all(usage in out for usage in terminal.HELP)


def test_silent_clip_is_said(session):
    assert "silent.wav: 1.0 s, which is silent" in converse(session, "/audio silent.wav")
    assert "silent" not in converse(session, "/audio loud.wav")


def test_interrupting_an_answer_keeps_the_conversation(session, monkeypatch):
    def interrupted(question, on_text=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "ask", interrupted)
    assert "stopped" in converse(session, "What is it?", "/help")


def test_an_empty_answer_is_said(session):
    session.text = ""
    assert "(the model gave no answer)" in converse(session, "What is it?")


def test_json_is_one_object_and_nothing_else(session, capsys):
    session.text = 'Un "oiseau" é'
    chat("runs/x", ["a.wav", "b.wav"], "What?", as_json=True, lora_scale=0.5)
    out = capsys.readouterr().out
    assert out == '{"answer": "Un \\"oiseau\\" é", "audio_seconds": 1.235, "tokens": 7, "seconds": 0.988}\n'
    assert list(json.loads(out)) == ["answer", "audio_seconds", "tokens", "seconds"]
    assert session.loaded_with == [("runs/x", 0.5)]
    assert session.done == [("audio", "a.wav"), ("audio", "b.wav"), ("ask", "What?")]


def test_one_question_prints_the_answer_alone(session, capsys):
    chat("runs/x", ["a.wav"], "What?")
    assert capsys.readouterr().out == session.text + "\n"


def test_one_question_about_a_bad_clip_raises(session):
    with pytest.raises(AudioError, match=r"bad\.wav"):
        chat("runs/x", ["bad.wav"], "What?")


def test_json_needs_a_question(session):
    with pytest.raises(LalmError, match="--json prints one answer and needs --question"):
        chat("runs/x", as_json=True)
    assert session.loaded_with == []


def test_lines_of_a_pipe_are_questions(session, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("What is it?\r\n/audio bad.wav\nAnd now?"))
    chat("runs/x", ["clip.wav"])
    assert session.done == [("audio", "clip.wav"), ("ask", "What is it?"), ("ask", "And now?")]
    out = capsys.readouterr().out
    assert "error: bad.wav" in out
    assert terminal.PROMPT not in out.splitlines()[0]


def test_lines_of_a_person_end_with_ctrl_d(monkeypatch):
    class Keyboard(io.StringIO):
        def isatty(self):
            return True

    typed = iter(["Hello", KeyboardInterrupt, "again", EOFError])

    def fake_input(prompt):
        item = next(typed)
        if isinstance(item, str):
            return item
        raise item

    monkeypatch.setattr(sys, "stdin", Keyboard())
    monkeypatch.setattr("builtins.input", fake_input)
    assert list(read_lines(Console(file=io.StringIO()))) == ["Hello", "again"]


def test_recording_adds_a_clip(session, monkeypatch):
    monkeypatch.setattr(microphone, "record", lambda seconds, rate: np.ones(int(seconds * rate), np.float32))
    out = converse(session, "/record 2", "/record")
    assert session.done == [("array", (32000,)), ("array", (80000,))]
    assert "recording 2 s" in out
    assert "added microphone: 2.0 s" in out


def test_answer_json_rounds_to_milliseconds():
    assert json.loads(answer_json(Answer("x", 1 / 3, 1, 2 / 3, 0.1)))["seconds"] == 0.667
