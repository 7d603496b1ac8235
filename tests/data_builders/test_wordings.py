"""The wordings as data: enough of them, no unknown slot, and an error that names the file."""

import pytest

from data_builders import wordings
from data_builders.questions import TASKS
from data_builders.wordings import fill, load_wordings, slots_of
from lalm.errors import DataError

SLOTS = {"choices", "language", "target", "event", "reference", "name", "first", "second"}


@pytest.mark.parametrize("task", TASKS)
def test_every_list_has_six_different_wordings_with_known_slots(task):
    for name, rows in load_wordings(task).items():
        assert len(set(rows)) >= 6, name
        for row in rows:
            assert slots_of(row) <= SLOTS
            assert row[0].isupper()
            assert row[-1] in "?."


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
