"""Every recipe against a server that answers as told: records from good replies, counted reasons from bad ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from invented_facts import invented
from running import run_writer
from stub_endpoint import StubEndpoint

from data_builders.filters.grounding import Grounding
from data_builders.filters.phrases_filter import Phrases
from data_builders.llm_writer.facts import Facts, KnownQuestion
from data_builders.llm_writer.helpers import Helper, Helpers
from data_builders.llm_writer.recipes import RECIPES, writing_recipe
from data_builders.llm_writer.recipes.one_sound import ANGLES, CANDIDATES, OneQuestion, check
from data_builders.prompts import load_prompt
from lalm.data.records import Record, read_records
from lalm.errors import DataError

CLIP = invented(0)  # "A dog sounds before a bell, take 0."; dog 0.5-1.5 s, bell 2-4 s, of 6 s.
ASKED = KnownQuestion(question="Which sound is longer?", answer="bell", choices=("bell", "dog"), answer_type="choice")
PIECE = Facts(
    id="piece", audio=("piece.wav",), seconds=9.0, instruments=("cello", "piano"), attributes={"tempo": "slow"}
)


def hears(clip: Path, question: str) -> str:
    return {"Which": "A dog and then a bell.", "Is th": "There is no voice."}.get(question[:5], "There is no music.")


def speaks(text: str, path: Path) -> None:
    path.write_text(text)


HELPERS = Helpers(
    hear=Helper("ears/1", hears),
    similarity=Helper("clap/1", lambda clip, text: 0.4 if "bell" in text else 0.1),
    speak=Helper("voice/1", speaks),
)


def pair(question: str, answer: str, **more: Any) -> dict[str, Any]:
    return {"question": question, "answer": answer, "evidence": ["dog"]} | more


FIRST = pair(
    "Why may the dog bark at this place?", "It barks because somebody rings the bell.", evidence=["dog", "bell"]
)
SECOND = pair("What could a listener do next?", "Open up, since a bell asks for it.", evidence=["bell"])
REASONED = {
    "question": "What does the dog's noise suggest about the visitor?",
    "answer": "The dog sounds before the bell does, so it has heard the visitor come.",
    "events": ["dog", "bell"],
}
ONE = {"about": "bell", "question": "Who could be at the bell?", "answer": "A guest, whom the dog has heard come near."}
TURNS = [
    {"user": "What do we hear in this place?", "assistant": "A dog, and then a bell."},
    {"user": "Why?", "assistant": "Somebody may be at the gate."},
    {"user": "Does it go on?", "assistant": "It stops once the bell has rung."},
]
STEPS = [
    {"thought": "The dog sounds for one second.", "evidence": "dog, from 0.5 s to 1.5 s"},
    {"thought": "The bell sounds for two seconds.", "evidence": "bell, from 2.0 s to 4.0 s"},
]
FREE = [
    pair(f"What does part {n} of the piece hold?", f"The cello, version {n}.", evidence=["cello"]) for n in range(5)
]
NINE = {
    "fixed": ["A slow piece for two players.", "A cello and a piano.", "It is calm.", "Slow and even."],
    "free": FREE,
}

GOOD: dict[str, tuple[Facts, Any, int]] = {
    "open_aqa": (CLIP, {"pairs": [FIRST, SECOND]}, 2),
    "reasoning": (CLIP, {"pairs": [REASONED]}, 1),
    "dialogue": (CLIP, {"turns": TURNS, "evidence": ["dog", "bell"]}, 1),
    "music_qa": (PIECE, NINE, 9),
    "staged_caption": (CLIP, {"caption": "A dog barks, then a bell rings.", "sounds": "Dog, then bell."}, 2),
    "spoken": (CLIP, {"pairs": [FIRST, SECOND]}, 2),
    "one_sound": (CLIP, ONE, 1),
    "chain": (CLIP.model_copy(update={"questions": (ASKED,)}), {"steps": STEPS, "final": "The bell."}, 1),
}


def write(folder: Path, clip: Facts, recipe: str, *replies: Any, **more: Any):
    """What a run writes of one clip whose server gives these replies in turn, the last of them again and again."""
    (folder / "clips").mkdir(exist_ok=True)
    for path in clip.audio:
        (folder / path).write_bytes(b"sound")
    texts = [reply if isinstance(reply, str) else json.dumps(reply) for reply in replies]

    def answer(body: dict[str, Any]) -> str:
        return texts[min(len(stub.bodies), len(texts)) - 1]

    with StubEndpoint(answer) as stub:
        written = run_writer(folder, [clip], stub.url, recipe=recipe, job={"helpers": HELPERS} | more)
    rows = list(read_records(folder / "rows.jsonl"))
    rejects = [json.loads(line) for line in (folder / "rows.rejects.jsonl").read_text().splitlines()]
    return rows, rejects, written, stub


def test_every_recipe_is_here():
    assert set(GOOD) == set(RECIPES)
    with pytest.raises(DataError, match=r"--recipe 'poem' is not known. Accepted: open_aqa, reasoning"):
        writing_recipe("poem")


@pytest.mark.parametrize("name", GOOD)
def test_a_good_reply_becomes_valid_records(name, tmp_path):
    clip, reply, count = GOOD[name]
    rows, rejects, written, stub = write(tmp_path, clip, name, reply)
    assert (len(rows), rejects, written.rejected) == (count, [], {})
    assert len(stub.bodies) == 1
    assert len({row.id for row in rows}) == count
    for row in rows:
        assert row.id.startswith(f"{name}-{clip.id}-")
        assert row.audio[: len(clip.audio)] == clip.audio
        assert (row.source, row.licence, row.split) == (clip.source, clip.licence, "train")
        by = row.provenance["written_by"]
        assert (by["model"], by["recipe"], by["facts"]) == ("stub", name, clip.digest())
        [asked] = [used for used in by["asked"] if "prompt" in used]
        assert asked["prompt"] == f"{RECIPES[name].prompt}@1"
        assert asked["request"] == stub.keys[0]
        for filter_ in (Phrases(), Grounding(strict=True)):
            verdict = filter_.judge(row)
            assert verdict.kept, f"`lalm data filter` would reject it: {verdict}"


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("answer", ["I'm sorry, I cannot tell.", "According to the metadata, a dog.", "A helicopter."])
def test_refusals_leaks_and_inventions_of_every_recipe_are_rejected(name, answer, tmp_path):
    clip, reply, _ = GOOD[name]
    kind = {"I": "refuses to answer", "A ": "names a sound that the metadata does not"}
    expected = kind.get(answer[:1] if answer[0] == "I" else answer[:2], "shows what it was written from")
    spoiled = json.loads(json.dumps(reply), object_hook=lambda node: _spoil(node, answer))
    rows, rejects, written, stub = write(tmp_path, clip, name, spoiled)
    assert not rows
    assert expected in written.rejected
    assert rejects[0]["kind"] == expected
    if name == "one_sound":
        assert (len(stub.bodies), len(set(stub.keys)), written.rejected) == (
            CANDIDATES,
            CANDIDATES,
            {expected: CANDIDATES},
        )
        return
    assert len(stub.bodies) == 2
    assert "That cannot be used: " in stub.bodies[1]["messages"][3]["content"]
    assert expected in stub.bodies[1]["messages"][3]["content"]


def _spoil(node: dict[str, Any], answer: str) -> dict[str, Any]:
    for key in ("answer", "assistant", "thought", "caption"):
        if key in node:
            node[key] = answer
    if "fixed" in node:
        node["fixed"] = [answer] * 4
    return node


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"about": "siren"}, "its evidence is not known of the clip"),
        ({"about": "dog"}, "the question does not speak of its sound"),
        ({"question": "Is somebody at the bell?"}, "the question is not an open one"),
        ({"question": "Who is at the bell."}, "the question is not an open one"),
        (
            {"answer": "A guest, " + "whom nobody knows by any name at all, " * 4 + "has come."},
            "the question or the answer",
        ),
        ({"answer": "I would say that a guest has come."}, "the answer speaks of itself"),
        ({"answer": "Somebody who is loud and loud again."}, "goes round in circles"),
        ({"answer": "The guest who is the guest is the guest."}, "goes round in circles"),
        ({"answer": "A guest, since the dog comes after the bell."}, "has the sounds in another order"),
    ],
)
def test_one_sound_takes_no_candidate_that_is_wrong(change, kind, tmp_path):
    rows, rejects, _, stub = write(tmp_path, CLIP, "one_sound", ONE | change, "Hm.", ONE)
    assert [row.turns[1].content for row in rows] == [ONE["answer"]]
    assert [reject["place"] for reject in rejects] == ["candidate 1", "candidate 2"]
    assert rejects[0]["kind"].startswith(kind)
    assert len(rows[0].provenance["written_by"]["asked"]) == len(stub.bodies) == 3
    assert all(len(body["messages"]) == 2 for body in stub.bodies)


def test_one_sound_copies_no_example(tmp_path):
    prompt = load_prompt("one_sound").messages(angle="who", sounds="a dog, then a bell")[1][1]
    assert not check(OneQuestion(**ONE), CLIP, prompt).reasons
    copied = OneQuestion(**ONE | {"answer": "A clerk at a desk, who is late."})
    assert [(reason.kind, reason.detail) for reason in check(copied, CLIP, prompt).reasons] == [
        ("the answer copies an example", "a clerk at a desk")
    ]


def test_one_sound_holds_the_server_to_the_sounds_of_the_clip(tmp_path):
    [row], _, _, stub = write(tmp_path, CLIP, "one_sound", ONE)
    schema = stub.bodies[0]["response_format"]["json_schema"]["schema"]["properties"]
    assert schema["about"]["enum"] == ["bell", "dog"]
    assert schema["question"]["pattern"].startswith(f"^{ANGLES[row.meta['angle']]} ")
    assert stub.bodies[0]["messages"][1]["content"].endswith("Sounds: a dog, then a bell.")
    assert (row.meta["evidence"], len(row.meta["events"])) == (["bell"], 2)


def test_one_sound_asks_for_other_questions_where_more_are_wanted(tmp_path):
    other = ONE | {"question": "Who might ring this bell?"}
    rows, rejects, _, _ = write(tmp_path, CLIP, "one_sound", ONE, ONE, other, pairs=2)
    assert [(row.id[-1], row.question) for row in rows] == [("1", ONE["question"]), ("2", other["question"])]
    assert [reject["kind"] for reject in rejects] == ["a question is asked twice"]
    rows, _, written, _ = write(tmp_path, CLIP.model_copy(update={"id": "b"}), "one_sound", ONE, pairs=2)
    assert len(rows) == 1
    assert written.rejected == {"a question is asked twice": 2 * CANDIDATES - 1}


def test_one_sound_rests_on_no_sound_that_was_asked_for_in_vain(tmp_path):
    absent = KnownQuestion(question="Is a siren heard?", answer="no", choices=("yes", "no"), answer_type="yes_no")
    clip = CLIP.model_copy(update={"questions": (absent,)})
    rows, _, written, _ = write(tmp_path, clip, "one_sound", ONE | {"answer": "A driver, who has heard the siren."})
    assert (rows, set(written.rejected)) == ([], {"names a sound that the metadata does not"})
    assert writing_recipe("one_sound").ill_posed(Facts(id="a", audio=("a.wav",), captions=("A dog.",))) == (
        "no sound of the clip has a name"
    )


def test_good_pieces_stay_and_bad_ones_are_counted(tmp_path):
    bad = [
        pair("What else is there to hear?", "A siren."),
        pair("Who is there at the gate?", "A man.", evidence=["man"]),
    ]
    rows, rejects, written, _ = write(tmp_path, CLIP, "open_aqa", {"pairs": [FIRST, bad[0], bad[1], FIRST, SECOND]})
    assert [row.id[-1] for row in rows] == ["1"]  # The fifth is beyond the four asked for.
    assert [(item["place"], item["kind"], item["detail"]) for item in rejects] == [
        ("pair 2", "names a sound that the metadata does not", "siren"),
        ("pair 3", "its evidence is not known of the clip", "man"),
        ("pair 4", "a question is asked twice", FIRST["question"]),
    ]
    assert sum(written.rejected.values()) == 3


def test_the_second_ask_can_save_a_clip(tmp_path):
    rows, rejects, _, stub = write(tmp_path, CLIP, "open_aqa", "Gladly!", {"pairs": [FIRST]})
    assert len(rows) == 1
    assert not rejects
    asked = rows[0].provenance["written_by"]["asked"]
    assert [entry["request"] for entry in asked] == stub.keys
    assert stub.bodies[1]["messages"][2] == {"role": "assistant", "content": "Gladly!"}


def test_the_number_of_pairs_can_be_chosen(tmp_path):
    rows, _, _, stub = write(tmp_path, CLIP, "open_aqa", {"pairs": [FIRST, SECOND]}, pairs=1)
    assert len(rows) == 1
    assert "Write 1 different questions" in stub.bodies[0]["messages"][1]["content"]
    schema = stub.bodies[0]["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["pairs"]["maxItems"] == 1


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"events": ["dog"]}, "rests on fewer than two different events"),
        ({"events": ["dog", "Dog"]}, "rests on fewer than two different events"),
        ({"events": ["dog", "train"]}, "rests on an event that the clip does not have"),
        ({"answer": "The dog has heard the visitor come near."}, "the answer does not speak of its event"),
    ],
)
def test_reasoning_must_join_events(change, kind, tmp_path):
    rows, _, written, _ = write(tmp_path, CLIP, "reasoning", {"pairs": [REASONED | change]})
    assert (rows, written.rejected) == ([], {kind: 1})


def test_reasoning_keeps_the_aligned_events(tmp_path):
    [row], *_ = write(tmp_path, CLIP, "reasoning", {"pairs": [REASONED]})
    assert row.meta["events"] == [event.model_dump() for event in CLIP.events]
    assert writing_recipe("reasoning").ill_posed(PIECE) == "fewer than two different events have times"


@pytest.mark.parametrize(
    ("turns", "kind"),
    [
        ([TURNS[0], TURNS[1]], None),
        (
            [{"user": "Is it a dog there?", "assistant": "Yes, a dog."}, TURNS[1]],
            "the first question leans on something",
        ),
        ([TURNS[0], TURNS[1], TURNS[1]], "a question is asked twice"),
        ([TURNS[0], TURNS[1] | {"assistant": TURNS[0]["assistant"]}], "an answer is given twice"),
        (TURNS[:1], "the JSON has another form"),
    ],
)
def test_a_dialogue_holds_up_as_a_whole(turns, kind, tmp_path):
    rows, rejects, _, _ = write(tmp_path, CLIP, "dialogue", {"turns": turns, "evidence": ["dog"]})
    if kind is None:
        assert [turn.role for turn in rows[0].turns] == ["user", "assistant"] * 2
    else:
        assert not rows
        assert rejects[0]["kind"].startswith(kind)


def test_music_leaves_out_what_is_not_known(tmp_path):
    rows, rejects, _, _ = write(tmp_path, PIECE, "music_qa", NINE | {"fixed": [None, "A cello.", "", "Slow and even."]})
    assert sorted(row.id[-6:] for row in rows if "fixed" in row.id) == ["fixed2", "fixed4"]
    assert [(item["place"], item["kind"]) for item in rejects] == [
        ("fixed question 1", "its answer is not known"),
        ("fixed question 3", "its answer is not known"),
    ]
    _, rejects, _, _ = write(tmp_path, PIECE.model_copy(update={"id": "b"}), "music_qa", NINE | {"fixed": ["Calm."]})
    assert rejects[0]["kind"] == "the fixed questions have another number of answers"


@pytest.mark.parametrize(
    ("final", "kept"), [("bell", True), ("A bell!", True), ("dog", False), ("bell and dog", False), ("", False)]
)
def test_a_chain_must_end_in_the_known_answer(final, kept, tmp_path):
    clip, reply, _ = GOOD["chain"]
    rows, rejects, _, stub = write(tmp_path, clip, "chain", reply | {"final": final})
    if kept:
        assert rows[0].turns[1].content.endswith("\nSo the answer is: bell")
        assert "Options: bell, dog." in rows[0].question
    else:
        assert rejects[0]["kind"].startswith("the final answer is not what the facts decide")
        assert "answer: bell" not in stub.bodies[-1]["messages"][-1]["content"].casefold()


def test_a_chain_never_shows_the_answer_to_the_writer(tmp_path):
    secret = KnownQuestion(question="Which bird is it?", answer="wren", choices=("wren", "owl"), answer_type="choice")
    clip = CLIP.model_copy(update={"questions": (secret,)})
    _, _, _, stub = write(tmp_path, clip, "chain", {"steps": STEPS, "final": "owl"})
    for body in stub.bodies:
        assert json.dumps(body).count("wren") == 1  # Among the options, and nowhere else.


def test_a_chain_makes_its_question_of_timed_events():
    recipe = writing_recipe("chain")
    assert recipe.ill_posed(CLIP) == ""
    assert recipe.ill_posed(PIECE).startswith("no question with a closed answer is known")
    bare = Facts(id="a", audio=("a.wav",), questions=(ASKED,))
    assert recipe.ill_posed(bare) == "nothing is known of the clip to think with"


def test_a_caption_that_does_not_fit_is_written_once_more(tmp_path):
    first, second = {"caption": "A dog barks at a gate."}, {"caption": "A dog barks at a bell."}
    rows, _, _, stub = write(tmp_path, CLIP, "staged_caption", first, second)
    assert [row.answer for row in rows] == [second["caption"]]
    assert rows[0].meta["similarity"] == 0.4
    assert "A dog and then a bell." in rows[0].meta["facts"][1]
    assert "so write another: A dog barks at a gate." in stub.bodies[1]["messages"][1]["content"]
    clip = CLIP.model_copy(update={"id": "b"})
    rows, rejects, _, _ = write(tmp_path, clip, "staged_caption", first, {"caption": "A dog barks at it all."})
    assert not rows
    assert (rejects[0]["kind"], rejects[0]["detail"]) == (
        "no caption fits the sound of the clip",
        "0.100; 0.25 is wanted",
    )


def test_a_listener_hears_a_clip_once_ever(tmp_path):
    calls = []

    def counted(clip: Path, question: str) -> str:
        calls.append(question)
        return hears(clip, question)

    helpers = Helpers(hear=Helper("ears/1", counted))
    for _ in range(2):
        rows, *_ = write(tmp_path, CLIP, "staged_caption", GOOD["staged_caption"][1], helpers=helpers)
    assert len(calls) == 3
    assert rows[0].meta["similarity"] == "not measured"
    write(tmp_path, CLIP, "staged_caption", GOOD["staged_caption"][1], helpers=Helpers(hear=Helper("ears/2", counted)))
    assert len(calls) == 6


def test_a_spoken_instruction_is_heard_after_the_clip(tmp_path):
    rows, _, _, _ = write(tmp_path, CLIP, "spoken", {"pairs": [FIRST, pair("Tell me about sound #2, now.", "A bell.")]})
    [row] = rows
    assert row.audio[0] == CLIP.audio[0]
    assert (tmp_path / row.audio[1]).read_text() == FIRST["question"] == row.meta["said"]
    assert row.turns[0].content == "<audio>\n<audio>"
    again, rejects, _, _ = write(tmp_path, CLIP, "spoken", {"pairs": [pair("word " * 31, "A dog.")]}, seed=1)
    assert not again
    assert rejects[0]["kind"] == "the question is too long to say"


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("spoken", "needs a helper that can speak: give --speak espeak-ng"),
        ("staged_caption", "can hear: give --labeller"),
    ],
)
def test_a_missing_helper_is_refused_before_anything_is_asked(recipe, message, tmp_path):
    with StubEndpoint(lambda body: "") as stub, pytest.raises(DataError, match=message):
        run_writer(tmp_path, [CLIP], stub.url, recipe=recipe)
    assert not stub.bodies
    assert not list(tmp_path.glob("rows*"))


def test_a_clip_of_which_nothing_is_known_is_not_asked(tmp_path):
    rows, rejects, written, stub = write(tmp_path, Facts(id="a", audio=("a.wav",)), "open_aqa", {"pairs": [FIRST]})
    assert (rows, stub.bodies) == ([], [])
    assert written.rejected == {"not asked: nothing is known of the clip": 1}
    assert rejects[0]["id"] == "a"


def test_a_reply_cannot_move_the_clip(tmp_path):
    """A placeholder of audio in a reply would stand for a clip in the record."""
    rows, rejects, _, _ = write(tmp_path, CLIP, "open_aqa", {"pairs": [pair("What is at <audio> in here?", "A dog.")]})
    assert not rows
    assert rejects[0]["kind"] == "holds <audio>, which is the clip's own place"


def test_rows_elsewhere_still_find_their_clips(tmp_path):
    (tmp_path / "in").mkdir()
    with StubEndpoint(lambda body: json.dumps({"pairs": [FIRST]})) as stub:
        run_writer(tmp_path, [CLIP], stub.url, out="in/rows.jsonl")
    [row] = read_records(tmp_path / "in" / "rows.jsonl")
    assert isinstance(row, Record)
    assert row.audio == ("../clips/0000.wav",)


def test_another_seed_asks_anew(tmp_path):
    keys = []
    for seed in (0, 1):
        rows, _, _, stub = write(tmp_path, CLIP, "open_aqa", {"pairs": [FIRST]}, seed=seed)
        keys += stub.keys
        assert rows[0].id == "open_aqa-clip0000-1" + ("-s1" if seed else "")
    assert len(set(keys)) == 2
