"""How events stand to each other, notes, two clips, composed questions: right answers, and what is not asked."""

from collections import Counter
from dataclasses import replace

import pytest
from invented_corpora import invented_clips

from data_builders.clips import seeded
from data_builders.questions import CANNOT_TELL, Context, IllPosed, Question, Subject, ask
from data_builders.questions.balance import AnswerBalance
from data_builders.questions.composed import LETTERS, NONE_OF_THESE, matched_lengths
from data_builders.scenes import Event, Scene

SOUNDS = ("bell", "chime", "cymbal", "drone", "kick drum", "snare drum", "whoosh")
INSTRUMENTS = ("flute", "organ", "piano", "violin", "guitar")
CONTEXT = Context(SOUNDS, INSTRUMENTS, (*SOUNDS, *INSTRUMENTS, "speech"))
CLIPS = {clip.id: clip for clip in invented_clips(4)}


def scene(*rows, effects=None, second=None):
    """Rows of (label, onset, duration, level[, side])."""
    events = tuple(
        Event(label, f"c{place}", f"g{place}", onset, duration, level, level + 10, *side)
        for place, (label, onset, duration, level, *side) in enumerate(rows)
    )
    return Subject("scene", scene=Scene(events, effects or {}), second=second)


THREE = scene(("bell", 0, 1.5, -34), ("drone", 2, 0.5, -26), ("whoosh", 3, 0.9, -18))
LAPPED = scene(("bell", 0, 1.5, -34), ("drone", 0.9, 1.0, -26), ("whoosh", 3, 0.9, -18))


def phrase(*notes, beat=0.33):
    return Subject("i", replace(CLIPS["i-0-0-0"], facts={"notes": list(notes), "beat_seconds": beat}))


def asked(task, subject, number=120):
    return [ask(task, subject, CONTEXT, seeded(task, draw)) for draw in range(number)]


def questions(task, subject, number=120):
    return [question for question in asked(task, subject, number) if isinstance(question, Question)]


def reasons(task, subject):
    results = asked(task, subject, 40)
    assert all(isinstance(result, IllPosed) for result in results)
    return {result.reason for result in results}


def test_the_absent_sound_is_absent_and_no_ear_could_hear_it():
    found = questions("scene_absent", THREE)
    assert len(found) == 120
    for question in found:
        assert question.answer not in {"bell", "drone", "whoosh", "chime"}
        assert set(question.choices) - {question.answer} <= {"bell", "drone", "whoosh"}
    near = sum(question.answer in ("cymbal",) for question in found)
    assert near > 20  # what sounds like a bell is preferred to what does not


def test_between_takes_neighbours_that_are_heard_once():
    assert {question.answer for question in questions("scene_between", THREE)} == {"drone"}
    assert {question.slots["first"] for question in questions("scene_between", THREE)} == {"the bell"}
    twice = scene(("bell", 0, 1, -20), ("drone", 2, 1, -20), ("bell", 4, 1, -20))
    assert reasons("scene_between", twice) == {"no sound stands between two that are heard once"}
    assert reasons("scene_between", LAPPED) == {"events overlap"}


def test_before_and_after_follow_the_onsets_and_are_balanced():
    balance = AnswerBalance()
    counts = Counter()
    onset = {"the bell": 0, "the drone": 2, "the whoosh": 3}
    for question in questions("scene_before", THREE, 300):
        first, second = (onset[question.slots[name]] for name in ("first", "second"))
        assert question.answer == ("yes" if (first < second) == (question.wording == "before") else "no")
        if balance.accepts(question):
            counts[question.answer] += 1
    assert abs(counts["yes"] - counts["no"]) <= 2


def test_a_duration_is_asked_where_it_is_near_one_length():
    assert {question.answer for question in questions("scene_duration", THREE)} == {
        "one and a half seconds",
        "half a second",
        "one second",
    }
    unclear = scene(("bell", 0, 1.25, -20), ("drone", 2, 0.75, -20))
    assert reasons("scene_duration", unclear) == {"no sound is clearly of one of the lengths"}
    wet = replace(THREE, scene=replace(THREE.scene, effects={"reverb_seconds": 0.5}))
    assert reasons("scene_duration", wet) == {"the end of a sound is not heard"}


def test_the_most_needs_a_margin():
    found = {(question.wording, question.answer) for question in questions("scene_most", THREE)}
    assert found == {("loudest", "whoosh"), ("quietest", "bell"), ("longest", "bell"), ("shortest", "drone")}
    even = scene(("bell", 0, 1, -20), ("drone", 2, 1, -22))
    assert {reason[:15] for reason in reasons("scene_most", even)} == {"no clear margin"}
    dull = replace(THREE, scene=replace(THREE.scene, effects={"filter": "low_pass"}))
    assert reasons("scene_most", dull) == {"a filter or an overlap changes what is heard of a sound"}


def test_overlap_is_asked_of_clear_cases():
    for question in questions("scene_overlap", LAPPED):
        pair = {question.slots["first"], question.slots["second"]}
        assert question.answer == ("yes" if pair == {"the bell", "the drone"} else "no")
        assert pair in ({"the bell", "the drone"}, {"the drone", "the whoosh"})
    assert {question.answer for question in questions("scene_overlap", LAPPED)} == {"yes", "no"}
    touching = scene(("bell", 0, 1.0, -20), ("drone", 1.02, 1, -20))
    assert reasons("scene_overlap", touching) == {"no two sounds clearly overlap", "no two sounds are clearly apart"}


def test_the_side_is_that_of_the_event():
    stereo = scene(("bell", 0, 1, -20, "left"), ("drone", 2, 1, -20, "right"), ("bell", 4, 1, -20, "right"))
    assert {(question.slots["event"], question.answer) for question in questions("scene_side", stereo)} == {
        ("the drone", "right")
    }
    assert reasons("scene_side", THREE) == {"no sound that is heard once has a side"}


@pytest.mark.parametrize(
    ("task", "notes", "answer"),
    [
        ("note_count", (60, 62, 64), "three"),
        ("melody_direction", (60, 62, 64), "upwards"),
        ("melody_direction", (64, 60), "downwards"),
        ("melody_direction", (60, 64, 62), "both ways"),
        ("interval", (60, 67), "perfect fifth"),
        ("interval", (72, 60), "octave"),
        ("interval", (60, 60), "unison"),
        ("pitch", (61,), "C sharp"),
        ("tempo", (60, 62, 64), "three"),
    ],
)
def test_notes_answer_from_the_score(task, notes, answer):
    found = questions(task, phrase(*notes))
    assert {question.answer for question in found} == {answer}
    assert all(answer in question.choices for question in found)


@pytest.mark.parametrize(
    ("task", "subject", "reason"),
    [
        ("melody_direction", phrase(60, 60, 64), "played twice in a row"),
        ("interval", phrase(60, 75), "within an octave"),
        ("pitch", phrase(60, 62), "not one note"),
        ("pitch", replace(phrase(60), original=False), "not one note at the pitch"),
        ("tempo", replace(phrase(60, 62, 64), original=False), "speed they were written at"),
        ("tempo", phrase(60, 62, 64, beat=0.4), "not near a whole number"),
        ("note_count", Subject("s", CLIPS["s-0-0"]), "no score"),
        ("pair_more", THREE, "no two scenes"),
    ],
)
def test_what_the_score_does_not_decide_is_not_asked(task, subject, reason):
    assert all(reason in found for found in reasons(task, subject))


def test_the_place_of_an_interval_among_its_options_tells_nothing():
    places = Counter(question.choices.index("perfect fifth") for question in questions("interval", phrase(60, 67), 400))
    assert set(places) == {0, 1, 2, 3}
    assert min(places.values()) > 60


def test_two_clips_are_compared_by_their_events():
    other = scene(("bell", 0, 1, -20), ("organ", 2, 1, -20))
    both = replace(THREE, second=other)
    for question in questions("pair_contains", both):
        assert question.answer == ("the second" if question.slots["event"] == "an organ" else "the first")
        assert question.slots["event"] != "a bell"
    assert {question.answer for question in questions("pair_more", both)} == {"the first"}
    assert {question.answer for question in questions("pair_same", both)} == {"yes"}
    assert reasons("pair_more", replace(THREE, second=THREE)) == {"as many sounds in both"}
    assert reasons("pair_contains", replace(THREE, second=THREE)) == {"no sound is in one scene alone"}
    chimes = scene(("chime", 0, 1, -20), ("organ", 2, 1, -20))
    assert reasons("pair_same", replace(THREE, second=chimes)) == {"two sounds that a listener takes for one"}


def test_letters_are_uniform_and_the_other_options_are_absent():
    places = Counter()
    for question in questions("multiple_choice", THREE, 400):
        options = dict(zip(LETTERS, question.meta["options"], strict=True))
        assert options[question.answer] == ("bell" if question.wording == "first" else "whoosh")
        assert not {name for letter, name in options.items() if letter != question.answer} & {"bell", "drone", "whoosh"}
        assert len(set(options.values())) == 4
        places[question.answer] += 1
    assert min(places.values()) > 60


def test_wrong_options_are_of_the_answers_length_and_not_all_shorter():
    absent = ["a", "bb", "cccc", "ddddd", "eeeee", "ffffffffffff"]
    for draw in range(40):
        wrong = matched_lengths("xxxxx", absent, [], 3, seeded(draw))
        assert set(wrong) <= {"cccc", "ddddd", "eeeee"}
        assert any(len(name) >= 5 for name in wrong)


def test_a_dialogue_asks_different_things_of_one_scene():
    for question in questions("dialogue", THREE, 60):
        tasks = [*(earlier.task for earlier in question.earlier), question.wording.split("/")[0]]
        assert 2 <= len(tasks) == len(set(tasks)) <= 3
        assert question.choices is None or question.answer in question.choices


def test_options_that_do_not_fit():
    bell = Subject("b", replace(CLIPS["s-0-0"], label="bell"))
    found = questions("unanswerable_options", bell, 200)
    assert {question.answer for question in found} == {NONE_OF_THESE}
    assert not any("bell" in question.slots["choices"] or "chime" in question.slots["choices"] for question in found)
    colours = sum("red" in question.slots["choices"] for question in found)
    assert 5 < colours < 60
    assert {question.answer for question in questions("unanswerable_unrelated", bell)} == {CANNOT_TELL}
    assert reasons("unanswerable_options", THREE) == {"no single sound or instrument"}


def test_no_name_is_right_more_often_than_its_share_of_the_options():
    """A name that is mostly wrong where it is shown would be answered without listening."""
    guarded, free = (right_shares(draws=3000, balance=balance) for balance in (AnswerBalance(), None))
    assert free["bell"] < 0.1
    assert len(guarded) > 8
    assert all(0.2 < share < 0.5 for share in guarded.values())


def right_shares(draws, balance):
    """How often each name is the absent one where it is an option, in scenes of which most hold a bell."""
    right, shown = Counter(), Counter()
    for draw in range(draws):
        rng = seeded("names", draw)
        names = ["bell"] * (rng.random() < 0.7) + rng.sample(sorted({*SOUNDS, *INSTRUMENTS} - {"bell"}), 2)
        subject = scene(*((name, 2.0 * place, 1, -20) for place, name in enumerate(names[:2])))
        question = ask("scene_absent", subject, CONTEXT, rng)
        if balance is None or balance.accepts(question):
            right[question.answer] += 1
            shown.update(question.choices)
    return {name: right[name] / count for name, count in shown.items() if count >= 10}
