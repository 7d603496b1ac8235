"""Every field of every record comes back from every format, whatever the format can hold itself."""

from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_builders.formats import FORMATS
from data_builders.formats.base import EXTENSION
from data_builders.formats.files import extra_path, read_rows, write_rows
from data_builders.formats.rows import record_of_row
from lalm.data.records import AUDIO_PLACEHOLDER, Record

numbers = count()
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(str.strip)
said = st.one_of(
    texts, st.sampled_from(["yes", "no", "3", 'a,"b"\r\n', "Question: a Answer: b", "[Human]: <eoh>", "|"])
)
free = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
kept = st.fixed_dictionaries({"row": st.dictionaries(texts, texts | st.integers(), max_size=2)})
origins = st.dictionaries(texts, free, max_size=2) | st.fixed_dictionaries(
    {"foreign": st.dictionaries(st.sampled_from(sorted(FORMATS)), kept | free, max_size=2)}
)


@st.composite
def records(draw) -> Record:
    audio = draw(st.lists(st.sampled_from(["a.wav", "d/b c.flac", "d/ü,'.wav", "x.ark:17"]), max_size=3))
    users = draw(st.lists(said, min_size=1, max_size=3))
    if draw(st.booleans()) and audio:
        users[0] = AUDIO_PLACEHOLDER * (len(audio) - 1) + users[0] + AUDIO_PLACEHOLDER
    turns = [{"role": "system", "content": draw(said)}] if draw(st.booleans()) else []
    for user in users:
        turns += [{"role": "user", "content": user}, {"role": "assistant", "content": draw(said)}]
    if draw(st.integers(0, 9)) == 0:
        turns.pop()
    record = Record.model_validate(
        {
            "id": draw(texts),
            "audio": audio,
            "turns": turns,
            "task": draw(said),
            "answer_type": draw(st.sampled_from(["open", "choice", "yes_no", "number", "transcript"])),
            "source": draw(st.just("") | texts),
            "split": draw(st.sampled_from(["train", "validation", "test"])),
            "licence": draw(st.just("") | texts),
            "provenance": draw(origins),
            "meta": draw(st.dictionaries(texts, free, max_size=2)),
        }
    )
    wanted = record.answer is not None and draw(st.booleans())
    return record.model_copy(update={"choices": (record.answer, f"not {record.answer}")}) if wanted else record


def read_all(form, path):
    found = list(read_rows(form, path))
    assert not [row for _, row, _ in found if isinstance(row, str)]
    return [record_of_row(form, row, hints, where) for where, row, hints in found]


@pytest.mark.parametrize("name", FORMATS)
@settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rows=st.lists(records(), max_size=3))
def test_every_field_comes_back(name, rows, tmp_path):
    form = FORMATS[name]
    path = tmp_path / f"french_binary_test_{next(numbers)}.out"
    assert write_rows(form, path, iter(rows)) == len(rows)
    back = read_all(form, path)
    assert [record.model_dump_json() for record in back] == [record.model_dump_json() for record in rows]


@pytest.mark.parametrize("name", FORMATS)
def test_plain_rows_have_no_extension_and_leave_no_file_beside(name, tmp_path):
    record = Record.model_validate(
        {
            "id": "r1",
            "audio": ["a.wav"],
            "turns": [{"role": "user", "content": "Is it loud?"}, {"role": "assistant", "content": "yes"}],
            "licence": "CC0",
        }
    )
    path = tmp_path / "plain"
    write_rows(FORMATS[name], path, [record], plain=True)
    assert not extra_path(path).exists()
    assert EXTENSION not in path.read_text()
    (back,) = read_all(FORMATS[name], path)
    assert (back.question, back.answer, back.licence) == ("Is it loud?", "yes", "")
