"""The wordings as data: enough of them, no unknown slot, and an error that names the file."""

import pytest

from data_builders import wordings
from data_builders.questions import TASKS
from data_builders.wordings import fill, load_wordings, slots_of, wording_languages
from lalm.errors import DataError

SLOTS = {"choices", "language", "target", "event", "reference", "name", "first", "second", "last", "options", "number"}
SLOTS |= {"question", "word"}
BORROWED = ("dialogue", "unanswerable_options", "unanswerable_unrelated")
"""Tasks whose questions are in the words of others."""


LANGUAGES = wording_languages()


@pytest.mark.parametrize("task", [task for task in TASKS if task not in BORROWED])
def test_every_list_has_six_different_wordings_with_known_slots(task):
    for name, rows in load_wordings(task).items():
        assert len(set(rows)) >= 6, name
        for row in rows:
            assert slots_of(row) <= SLOTS
            assert row[0].isupper() or row[0] == "{"
            assert row[-1] in "?.}"


@pytest.mark.parametrize("language", [name for name in LANGUAGES if name != "en"])
def test_other_languages_have_the_english_lists_and_slots(language):
    translated = 0
    for task in TASKS:
        if task in BORROWED:
            continue
        english, other = load_wordings(task), load_wordings(task, language)
        assert set(english) == set(other)
        for name, rows in other.items():
            if rows != english[name]:
                translated += 1
                assert len(set(rows)) >= 6
                assert not set(rows) & set(english[name])
                assert {slot for row in rows for slot in slots_of(row)} <= {
                    slot for row in english[name] for slot in slots_of(row)
                }
    assert translated >= 6
    assert fill("transcription", "default", 0, {}, language) != fill("transcription", "default", 0, {})


def test_fill_counts_round():
    rows = load_wordings("scene_order")["after"]
    assert fill("scene_order", "after", len(rows) + 1, {"reference": "the bell"}) == rows[1].format(
        reference="the bell"
    )


def test_a_slot_that_the_family_does_not_fill_is_named():
    with pytest.raises(DataError, match=r"scene_order\.yaml: after: .*reference.*\['event'\]"):
        fill("scene_order", "after", 0, {"event": "a bell"})


def test_an_unknown_list_and_an_unknown_task_are_named():
    with pytest.raises(DataError, match=r"no list 'sideways'; it has first"):
        fill("scene_order", "sideways", 0, {})
    with pytest.raises(DataError, match=r"wordings/nothing\.yaml: no such file"):
        load_wordings("nothing")


def test_a_file_of_another_shape_is_named(tmp_path, monkeypatch):
    (tmp_path / "odd.yaml").write_text("- just\n- a list\n")
    monkeypatch.setattr(wordings.resources, "files", lambda name: tmp_path)
    load_wordings.cache_clear()
    with pytest.raises(DataError, match="table of lists"):
        load_wordings("odd")
    load_wordings.cache_clear()
