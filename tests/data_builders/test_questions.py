"""Every family: right answers from known truth, and nothing asked where the truth does not decide."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from invented_corpora import invented_clips

from data_builders.clips import seeded
from data_builders.questions import CANNOT_TELL, FAMILIES, TASKS, Context, IllPosed, Question, Subject, ask
from data_builders.questions import scenes as of_scenes
from data_builders.questions.balance import AnswerBalance
from data_builders.questions.base import Guard, with_article
from data_builders.scenes import Event, Scene

SOUNDS = ("bell", "cymbal", "drone", "kick drum", "snare drum", "whoosh")
INSTRUMENTS = ("flute", "organ", "piano")
CONTEXT = Context(
    SOUNDS,
    INSTRUMENTS,
    (*SOUNDS, *INSTRUMENTS, "speech"),
    {"key-1": {"English": "open the door now", "Italian": "apri la porta adesso"}},
)
CLIPS = {clip.id: clip for clip in invented_clips(4)}
PROMPT = replace(CLIPS["p-It-01"], text="apri la porta adesso")


def scene(*rows):
    """Rows of (label, duration, level)."""
    return Subject(
        "scene",
        scene=Scene(
            tuple(
                Event(label, f"c{place}", f"g{place}", 2.0 * place, duration, level, level + 10)
                for place, (label, duration, level) in enumerate(rows)
            )
        ),
    )


def asked(task, subject, number=200):
    """All different outcomes of many draws."""
    return [ask(task, subject, CONTEXT, seeded(task, draw)) for draw in range(number)]


def test_every_task_is_named_once():
    assert TASKS == (
        "transcription",
        "spoken_language",
        "spoken_digit",
        "spoken_letter",
        "spoken_word",
        "translation",
        "sound_name",
        "instrument_name",
        "scene_events",
        "scene_presence",
        "scene_order",
        "scene_count",
        "scene_compare",
        "description",
        "unanswerable",
        "scene_absent",
        "scene_between",
        "scene_before",
        "scene_duration",
        "scene_most",
        "scene_overlap",
        "scene_side",
        "note_count",
        "melody_direction",
        "interval",
        "pitch",
        "tempo",
        "pair_contains",
        "pair_more",
        "pair_same",
        "multiple_choice",
        "dialogue",
        "instruction",
        "unanswerable_options",
        "unanswerable_unrelated",
        "told_question",
        "emotion",
        "pair_speaker",
        "event_order",
        "tempo_bpm",
        "musical_key",
        "keyword",
        "acoustic_feature",
        "acoustic_features",
        "pair_brighter",
        "description_short",
        "description_long",
        "chord",
    )


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "subject",
    [
        Subject("a", PROMPT),
        Subject("b", CLIPS["s-0-0"]),
        Subject("c", CLIPS["i-0-0-0"]),
        scene(("bell", 1, -20), ("speech", 1.6, -30), ("bell", 0.5, -20)),
    ],
)
def test_an_answer_is_short_and_among_its_choices(task, subject):
    for question in asked(task, subject, 60):
        if isinstance(question, Question):
            assert question.task == task
            assert question.answer
            assert question.choices is None or question.answer in question.choices
            assert question.choices is None or len(set(question.choices)) == len(question.choices) > 1


def test_speech_answers():
    subject = Subject("a", PROMPT)
    assert ask("transcription", subject, CONTEXT, seeded(0)).answer == "apri la porta adesso"
    language = ask("spoken_language", subject, CONTEXT, seeded(0))
    assert (language.answer, len(language.choices)) == ("Italian", 5)
    assert ask("translation", subject, CONTEXT, seeded(0)).answer == "open the door now"
    assert ask("description", subject, CONTEXT, seeded(0)).answer == "Someone speaks Italian."
    digit = ask("spoken_digit", Subject("d", CLIPS["d-It-two"]), CONTEXT, seeded(0))
    assert (digit.answer, digit.wording, len(digit.choices)) == ("two", "alone", 10)


@pytest.mark.parametrize(
    ("task", "text", "reason"),
    [
        ("spoken_language", "ok no", "fewer than three words"),
        ("spoken_language", "M I S D N 3", "fewer than three words"),
        ("translation", "apri", "no prompt of the same meaning"),
        ("transcription", "parola " * 30, "too long"),
    ],
)
def test_speech_that_does_not_decide_is_not_asked(task, text, reason):
    result = ask(task, Subject("a", replace(PROMPT, text=text)), CONTEXT, seeded(0))
    assert isinstance(result, IllPosed)
    assert reason in result.reason


def test_a_letter_alone_is_not_transcribed():
    clip = replace(PROMPT, text="b", facts={"key": "letters/b", "letter": "B", "alone": True})
    assert isinstance(ask("transcription", Subject("a", clip), CONTEXT, seeded(0)), IllPosed)
    assert ask("spoken_letter", Subject("a", clip), CONTEXT, seeded(0)).answer == "B"


def test_a_label_outside_the_closed_set_is_not_asked():
    assert isinstance(
        ask("sound_name", Subject("a", replace(CLIPS["s-0-0"], label="crow")), CONTEXT, seeded(0)), IllPosed
    )


def test_order_names_the_neighbour():
    subject = scene(("bell", 1, -20), ("drone", 1, -20), ("piano", 1, -20))
    expected = {"first": {"bell"}, "last": {"piano"}, "after": {"drone", "piano"}, "before": {"bell", "drone"}}
    found = [question for question in asked("scene_order", subject) if isinstance(question, Question)]
    assert {question.wording for question in found} == set(expected)
    for question in found:
        assert question.answer in expected[question.wording]
        assert question.slots.get("reference", "").removeprefix("the ") not in question.choices
    after = {(question.slots["reference"], question.answer) for question in found if question.wording == "after"}
    assert after == {("the bell", "drone"), ("the drone", "piano")}


def test_order_never_refers_to_a_sound_heard_twice_nor_offers_one_choice():
    subject = scene(("bell", 1, -20), ("drone", 1, -20), ("bell", 1, -20))
    for question in asked("scene_order", subject):
        assert isinstance(question, IllPosed) or question.wording in ("first", "last")


def test_presence_is_exact_and_absent_sounds_are_not_mistakable():
    subject = scene(("bell", 1, -20), ("kick drum", 1, -20))
    for question in asked("scene_presence", subject):
        label = question.guards[0].key.removeprefix("scene_presence ")
        assert question.answer == ("yes" if label in ("bell", "kick drum") else "no")
        assert question.slots["event"] == with_article(label)
    both = {question.answer for question in asked("scene_presence", subject)}
    assert both == {"yes", "no"}


def test_chimes_are_never_called_absent_where_a_bell_rings():
    context = replace(CONTEXT, scene_labels=("bell", "chime", "drone", "piano"))
    asked_of = {
        ask("scene_presence", scene(("bell", 1, -20), ("drone", 1, -20)), context, seeded(draw)).slots["event"]
        for draw in range(100)
    }
    assert "a chime" not in asked_of


def test_counts():
    subject = scene(("bell", 1, -20), ("drone", 1, -20), ("bell", 1, -20))
    found = {
        (question.wording, question.slots.get("name"), question.answer) for question in asked("scene_count", subject)
    }
    assert found == {("all", None, "three"), ("one", "bell", "two"), ("one", "drone", "one")}


@pytest.mark.parametrize(
    ("rows", "kind", "answer"),
    [
        ((("bell", 1.6, -20), ("drone", 0.6, -20)), "longer", "bell"),
        ((("bell", 0.8, -34), ("drone", 0.8, -26)), "louder", "drone"),
    ],
)
def test_comparison_with_a_clear_margin(rows, kind, answer):
    found = [question for question in asked("scene_compare", scene(*rows)) if isinstance(question, Question)]
    assert {(question.wording, question.answer) for question in found} == {(kind, answer)}


@pytest.mark.parametrize(
    "rows",
    [
        (("bell", 1.0, -20), ("drone", 1.3, -20)),
        (("bell", 1.0, -20), ("drone", 1.0, -24)),
        (("bell", 2.0, -20), ("bell", 0.5, -34)),
    ],
)
def test_comparison_without_a_margin_is_not_made(rows):
    assert all(isinstance(question, IllPosed) for question in asked("scene_compare", scene(*rows)))


def test_louder_needs_the_peaks_to_agree():
    first = Event("bell", "c", "g", 0, 1.0, -34.0, -5.0)
    second = Event("drone", "d", "h", 2, 1.0, -20.0, -12.0)
    subject = Subject("scene", scene=Scene((first, second)))
    assert all(isinstance(question, IllPosed) for question in asked("scene_compare", subject))


def test_scene_lists_and_describes_in_order():
    subject = scene(("organ", 1, -20), ("speech", 1, -20))
    assert ask("scene_events", subject, CONTEXT, seeded(0)).answer == "organ, speech"
    assert ask("description", subject, CONTEXT, seeded(0)).answer == "An organ, then speech."


def test_the_unanswerable_is_asked_in_words_of_other_families_and_only_of_the_wrong_clip():
    for subject, wrong in (
        (Subject("a", PROMPT), {"transcription", "spoken_language"}),
        (Subject("b", CLIPS["s-0-0"]), {"sound_name"}),
        (Subject("c", CLIPS["i-0-0-0"]), {"instrument_name"}),
    ):
        for question in asked("unanswerable", subject, 40):
            assert question.answer == CANNOT_TELL
            assert question.wording.split("/")[0] in set(FAMILIES) - wrong


def test_near_labels_are_never_the_same_label():
    assert all(name not in near for name, near in of_scenes.NEAR.items())


@given(st.lists(st.sampled_from("aaaaab"), min_size=30, max_size=200))
def test_no_answer_runs_ahead(answers):
    balance = AnswerBalance()
    for answer in answers:
        balance.accepts(Question("t", answer, guards=(Guard("k", answer, ("a", "b")),)))
    counts = balance.counts["k"]
    assert abs(counts["a"] - counts["b"]) <= max(1, 0.05 * sum(counts.values()))


def test_a_refused_question_counts_nowhere():
    balance = AnswerBalance()
    full = Guard("full", "a", ("a", "b"))
    assert balance.accepts(Question("t", "a", guards=(full,)))
    assert not balance.accepts(Question("t", "a", guards=(Guard("other", "a", ("a", "b")), full)))
    assert not balance.counts["other"]
