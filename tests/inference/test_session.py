"""One conversation: what is kept between turns never changes an answer."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from lalm.data.records import Turn
from lalm.errors import AudioError, DataError, ModelError
from lalm.inference.generate import Request, generate_answers
from lalm.inference.session import ChatSession, load_session
from lalm.recipe.schema import GenerationSection

GREEDY = GenerationSection(max_new_tokens=12)


@pytest.fixture
def session(tiny):
    return ChatSession(*tiny, GREEDY)


@pytest.fixture
def encoded(tiny, monkeypatch):
    """How many clips each call of the encoder got."""
    model, calls = tiny[0], []
    encode_audio = model.encode_audio

    def count(**inputs):
        calls.append(len(inputs["chunk_counts"]))
        return encode_audio(**inputs)

    monkeypatch.setattr(model, "encode_audio", count)
    return calls


def asked(question, *waves):
    """The request that a first question makes."""
    return Request((Turn(role="user", content=question),), waves)


def read_positions(model, monkeypatch):
    """Positions that each forward pass of the decoder reads."""
    lengths = []
    forward = model.language_model.forward

    def count(*args, **inputs):
        lengths.append(inputs["inputs_embeds"].shape[1])
        return forward(*args, **inputs)

    monkeypatch.setattr(model.language_model, "forward", count)
    return lengths


def test_an_answer_equals_the_batched_one(tiny, session, clip):
    wave = clip(1.3, seed=3)
    session.add_audio(wave)
    answer = session.ask("What is it?")
    assert [answer.text] == generate_answers(*tiny, [asked("What is it?", wave)], GREEDY)
    assert answer.audio_seconds == pytest.approx(1.3)
    assert 1 <= answer.tokens <= 12
    assert 0 < answer.first_token_seconds <= answer.seconds


def test_later_turns_read_only_what_is_new_and_equal_a_fresh_reading(tiny, session, clip, encoded, monkeypatch):
    model, _ = tiny
    lengths = read_positions(model, monkeypatch)
    waves = [clip(2.5, seed=4), clip(1.1, seed=5)]
    questions = ["What is it?", "Sure?", "And <audio> this?", "Which is longer?"]
    told, prefills = [], []
    session.add_audio(waves[0])
    for i, question in enumerate(questions):
        if i == 2:
            session.add_audio(waves[1])
        lengths.clear()
        told.append(session.ask(question).text)
        prefills.append(lengths[0])
    assert encoded == [1, 1], "each clip is encoded once"

    turns = []
    for i, (question, text) in enumerate(zip(questions, told, strict=True)):
        content = "<audio>" + question if i == 0 else question
        turns.append(Turn(role="user", content=content))
        request = Request(tuple(turns), tuple(waves[: 1 + (i >= 2)]))
        lengths.clear()
        assert generate_answers(*tiny, [request], GREEDY) == [text]
        assert (prefills[i] == lengths[0]) if i == 0 else (prefills[i] < lengths[0] - 20)
        turns.append(Turn(role="assistant", content=text))


def test_pieces_join_to_the_answer_and_never_break_a_character(tiny, session, clip):
    for seed in range(6):
        session.reset()
        session.add_audio(clip(1.0, seed=30 + seed))
        pieces = []
        answer = session.ask("What is it?", on_text=pieces.append)
        assert "".join(pieces) == answer.text
        assert all(pieces)


def test_beams_give_one_piece(tiny, clip):
    session = ChatSession(*tiny, GenerationSection(max_new_tokens=6, num_beams=2))
    session.add_audio(clip(1.0))
    pieces = []
    answer = session.ask("What is it?", on_text=pieces.append)
    assert pieces == [answer.text]


def test_another_adapter_scale_reads_anew(tiny, session, clip):
    wave = clip(1.0, seed=6)
    session.add_audio(wave)
    first = session.ask("What is it?")
    plain = GREEDY.model_copy(update={"lora_scale": 0.0})
    second = session.ask("Sure?", generation=plain)
    turns = (
        Turn(role="user", content="What is it?"),
        Turn(role="assistant", content=first.text),
        Turn(role="user", content="Sure?"),
    )
    assert [second.text] == generate_answers(*tiny, [Request(turns, (wave,))], plain)


def test_a_stopped_answer_leaves_the_conversation_as_it_was(tiny, session, clip):
    waves = (clip(1.0, seed=seed) for seed in range(50, 80))
    wave = next(wave for wave in waves if generate_answers(*tiny, [asked("What is it?", wave)], GREEDY) != [""])
    session.add_audio(wave)

    def stop(piece):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.ask("What is it?", on_text=stop)
    assert session.turns == []
    assert [session.ask("Sure?").text] == generate_answers(*tiny, [asked("Sure?", wave)], GREEDY)


def test_reset_forgets_everything(session, clip):
    session.add_audio(clip(1.0, seed=8))
    first = session.ask("What is it?").text
    session.reset()
    assert (session.turns, session.clips, session.audio_seconds) == ([], [], 0)
    session.add_audio(clip(1.0, seed=9))
    assert session.ask("What is it?").text != first


def test_without_a_clip_it_is_a_language_model(tiny, session):
    assert [session.ask("Hello").text] == generate_answers(*tiny, [asked("Hello")], GREEDY)


def test_long_clip_is_windowed_not_cut(tiny, session, clip):
    session.add_audio(clip(31.0))
    assert session.ask("What is it?").audio_seconds == pytest.approx(31.0)


def test_save_writes_the_transcript_and_keeps_the_old_one_on_failure(session, clip, tmp_path, monkeypatch):
    session.add_audio(clip(1.0, seed=1), name="dog.wav")
    first = session.ask("What is it?")
    session.add_audio(clip(0.5, seed=2), name="cat.wav")
    session.ask("And this?")
    path = tmp_path / "deep" / "chat.json"
    session.save(path)
    saved = json.loads(path.read_text(encoding="utf-8"))
    assert [item["name"] for item in saved["clips"]] == ["dog.wav", "cat.wav"]
    assert [turn["role"] for turn in saved["turns"]] == ["user", "assistant"] * 2
    assert [turn["content"].count("<audio>") for turn in saved["turns"]] == [1, 0, 1, 0]
    assert saved["turns"][1]["content"] == saved["answers"][0]["text"] == first.text

    def fail(*_args):
        raise OSError("disk full")

    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        session.save(path)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["chat.json"]


def test_refusals_leave_the_session_usable(session, clip, tmp_path):
    with pytest.raises(AudioError, match=r"gone\.wav"):
        session.add_audio(tmp_path / "gone.wav")
    with pytest.raises(AudioError, match=r"clip 1: samples must be one channel.*\(2, 100\)"):
        session.add_audio(np.zeros((2, 100), np.float32))
    with pytest.raises(AudioError, match=r"clip 1: samples must be one channel of floats.*int16"):
        session.add_audio(np.zeros(16000, np.int16))
    with pytest.raises(AudioError, match="hum: samples hold NaN"):
        session.add_audio(np.full(16000, np.nan, np.float32), name="hum")
    with pytest.raises(AudioError, match=r"clip 1: 0\.000 s are too short"):
        session.add_audio(np.zeros(0, np.float32))
    with pytest.raises(DataError, match="the question is empty"):
        session.ask(" <audio> ")
    session.add_audio(clip(0.5))
    with pytest.raises(DataError, match="holds 2 <audio> placeholders, but 1 clips were added"):
        session.ask("Is <audio> like <audio>?")
    with pytest.raises(ModelError, match="the language model has 1024"):
        session.ask("What is it?" * 100)
    assert session.ask("What is it?").tokens > 0


def test_load_session_takes_the_recipe_and_the_scale(tiny, recipe, monkeypatch):
    monkeypatch.setattr("lalm.model.checkpoint.load_run", lambda run, device=None: (*tiny, recipe))
    assert load_session("runs/x").generation == recipe.generation
    assert load_session("runs/x", lora_scale=0.5).generation.lora_scale == 0.5
    assert ChatSession(*tiny).generation == GenerationSection()
