"""Filters that are given a model: similarity, a recogniser, a judge; and the cap on answers."""

import json

import numpy as np
import pytest

from data_builders.filters.answer_cap import AnswerCap
from data_builders.filters.judging import CRITERIA, JudgePass, judge_prompt, read_verdict
from data_builders.filters.similarity import Similarity
from data_builders.filters.speech import SpeechErrors, spoken
from lalm.audio.io import save_audio
from lalm.errors import DataError


@pytest.fixture
def clips(tmp_path):
    """Ten tones of 100 to 1000 Hz."""
    time = np.arange(1600) / 16000
    for number in range(10):
        wave = 0.3 * np.sin(2 * np.pi * 100 * (number + 1) * time)
        save_audio(tmp_path / "clips" / f"{number}.wav", wave.astype(np.float32), 16000)
    return tmp_path


class PitchEncoder:
    """Sound and text as the angle of a pitch: a text names its hundred Hz."""

    sample_rate_hz = 16000

    def encode_audio(self, waves):
        peaks = [np.abs(np.fft.rfft(wave)).argmax() * 16000 / len(wave) / 1000 for wave in waves]
        return np.stack([np.cos(peaks), np.sin(peaks)], axis=1) * 7

    def encode_text(self, texts):
        pitches = np.array([float(text) / 10 for text in texts])
        return np.stack([np.cos(pitches), np.sin(pitches)], axis=1)


def test_the_least_similar_of_each_source_go(clips, record, run):
    rows = [record(n, answer=str(n + 1 if n not in (3, 7) else n + 8), source="a" if n < 5 else "b") for n in range(10)]
    kept, rejects, funnel = run(rows, Similarity(PitchEncoder(), clips, tail=0.2))
    assert [id_ for _, id_, _, _ in rejects] == ["r3", "r7"]
    assert set(funnel.reports["similarity"]) == {"a", "b"}
    assert kept[0].provenance["filters"]["similarity"] == pytest.approx(1.0, abs=0.01)


def test_an_unreadable_clip_is_rejected_and_a_text_row_passes(clips, record, run):
    rows = [record(0, answer="1"), record(99, answer="1"), record(2, answer="1", audio=())]
    kept, rejects, _ = run(rows, Similarity(PitchEncoder(), clips))
    assert [(id_, reason) for _, id_, reason, _ in rejects] == [("r99", "the clip cannot be read")]
    assert [row.id for row in kept] == ["r0", "r2"]
    with pytest.raises(DataError, match="tail 5 is no share"):
        Similarity(PitchEncoder(), clips, tail=5)


def test_transcripts_that_are_not_heard_are_rejected(clips, record, run):
    heard = {0: "Press one, now!", 1: "something else altogether"}
    lengths = []

    def recogniser(wave, language):
        lengths.append((len(wave), language))
        return heard[len(lengths) - 1]

    rows = [record(n, answer="préss one now", answer_type="transcript", meta={"language": "English"}) for n in range(2)]
    rows += [record(5), record(77, answer="words", answer_type="transcript")]
    kept, rejects, _ = run(rows, SpeechErrors(recogniser, clips))
    assert [row.id for row in kept] == ["r0", "r5"]
    assert kept[0].provenance["filters"]["speech"] == 0.0
    assert rejects[0][3] == {"word_error_rate": 1.0, "heard": "something else altogether"}
    assert rejects[1][2] == "the clip cannot be read"
    assert lengths == [(1600, "English")] * 2
    assert spoken("Don’t — stop, CAFÉ!") == "don't stop cafe"


def verdict(**changes):
    return json.dumps({**dict.fromkeys(CRITERIA, True), **changes})


def test_the_judge_sees_both_orders(record, run):
    prompts = []

    def judge(prompt, asked_before):
        prompts.append(prompt)
        return f"Here: {verdict()}"

    kept, _, _ = run([record(0, answer="dog", choices=["dog", "gong"]), record(1)], JudgePass(judge))
    assert len(kept) == 2
    assert ["Options: dog, gong" in prompt for prompt in prompts] == [True, False, False]
    assert "Options: gong, dog" in prompts[1]
    assert "Options: none" in prompts[2]


def test_what_the_judge_denies_or_turns_on_is_rejected(record, run):
    rows = [record(0, answer="dog", choices=["dog", "gong"]), record(1, answer="bird")]

    def judge(prompt, asked_before):
        if "bird" in prompt:
            return verdict(natural=False, supported=False)
        return verdict(supported="Options: dog" in prompt)

    kept, rejects, funnel = run(rows, JudgePass(judge))
    assert not kept
    assert rejects[0][2:] == ("the judge's verdict turns with the order of the options", ["supported"])
    assert rejects[1][2:] == ("not supported", ["supported", "natural"])
    assert funnel.reports["judge"] == {"judged": 2, "errors": 0, "agreement": 0.5}


def test_an_unreadable_reply_is_asked_for_again_then_an_error(record, run):
    replies = iter(["no JSON", verdict(), '{"supported": "yes"}', "{broken}"])
    kept, rejects, funnel = run([record(0), record(1)], JudgePass(lambda prompt, asked_before: next(replies)))
    assert [row.id for row in kept] == ["r0"]
    assert rejects[0][:3] == ("judge", "r1", "judge_error")
    assert funnel.reports["judge"]["errors"] == 1


def test_a_verdict_needs_every_criterion():
    assert read_verdict(verdict(natural=3)) is None
    assert read_verdict(verdict()) == dict.fromkeys(CRITERIA, True)


def test_the_prompt_holds_the_metadata(record):
    assert '"events": ["dog"]' in judge_prompt(record(meta={"events": ["dog"]}), None)


def test_a_leading_answer_is_capped_whatever_the_order(record, run):
    rows = [record(n, answer="yes" if n < 70 else "no", task="presence") for n in range(100)]
    kept, rejects, funnel = run(rows, AnswerCap())
    answers = [row.answer for row in kept]
    assert (answers.count("yes"), answers.count("no")) == (32, 30)
    assert funnel.reports["balance"]["presence"] == {"before": {"no": 30, "yes": 70}, "after": {"no": 30, "yes": 32}}
    again, _, _ = run(rows[::-1], AnswerCap())
    assert {row.id for row in again} == {row.id for row in kept}
    assert {reason for _, _, reason, _ in rejects} == {"its answer leads"}


def test_open_tasks_pass_and_most_caps_everything(record, run):
    rows = [record(n, answer=f"words {n % 25}", task="describe") for n in range(100)]
    assert len(run(rows, AnswerCap())[0]) == 100
    assert len(run(rows, AnswerCap(most=3))[0]) == 75
