"""The invented records: the same for everyone, of the lengths that were asked for, and counted as by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from lalm.bench.flops import useful_decoder_work
from lalm.bench.workload import SAMPLE_RATE_HZ, Workload, clip_samples, needed_work, write_workload
from lalm.data.examples import Example
from lalm.data.records import Record, read_records

TINY = Workload(num_clips=3, questions_per_clip=2, clip_seconds=(0.2, 0.5))


def example(clip: str, ids: list[int], num_supervised: int) -> Example:
    """A prompt that begins with one token and a clip of three positions."""
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    labels = [-100] * (len(ids) - num_supervised) + ids[len(ids) - num_supervised :]
    return Example(
        record=Record(id="r", audio=(clip,), turns=turns),
        source="bench",
        input_ids=np.array(ids, np.int32),
        labels=np.array(labels, np.int32),
        audio_spans=((1, 4),),
        clips=(clip,),
        audio_hashes=(clip,),
    )


def test_everyone_gets_the_same_records(tmp_path: Path):
    first, second = (write_workload(tmp_path / name, TINY) for name in "ab")
    assert first == second == list(read_records(tmp_path / "a/train.jsonl"))
    waves = [soundfile.read(tmp_path / name / "clips/1.wav")[0] for name in "ab"]
    np.testing.assert_array_equal(*waves)
    other = Workload(num_clips=3, questions_per_clip=2, clip_seconds=(0.2, 0.5), seed=1)
    assert write_workload(tmp_path / "c", other) != first


def test_every_block_holds_each_clip_once(tmp_path: Path):
    records = write_workload(tmp_path, TINY)
    assert len(records) == TINY.num_records == 6
    for start in (0, 3):
        assert {record.audio for record in records[start : start + 3]} == {(f"clips/{i}.wav",) for i in range(3)}
    assert len({record.question for record in records}) == 6


def test_clips_cover_the_range_of_lengths(tmp_path: Path):
    samples = clip_samples(Workload(num_clips=28, clip_seconds=(2.0, 30.0)))
    seconds = sorted(count / SAMPLE_RATE_HZ for count in samples)
    assert all(2 + number <= length <= 3 + number for number, length in enumerate(seconds))
    assert samples != sorted(samples)
    write_workload(tmp_path, TINY)
    assert [soundfile.info(tmp_path / f"clips/{i}.wav").frames for i in range(3)] == clip_samples(TINY)


def test_useful_tokens_are_counted_as_by_hand():
    shared = [
        example("dog", [5, 9, 9, 9, 6, 7, 8, 20, 21], num_supervised=2),
        example("dog", [5, 9, 9, 9, 6, 11, 20], num_supervised=1),
    ]
    alone = example("cat", [5, 9, 9, 9, 7, 20], num_supervised=1)
    # The five positions 5 9 9 9 6 once, then 4 and 2 of their own; and a row of 6.
    tokens, pairs = useful_decoder_work([*shared, alone])
    assert tokens == 5 + 4 + 2 + 6
    assert pairs == (1 + 2 + 3 + 4 + 5) + (6 + 7 + 8 + 9) + (6 + 7) + (1 + 2 + 3 + 4 + 5 + 6)
    work = needed_work([*shared, alone], audio_seconds=3.5)
    assert (work.useful_tokens, work.supervised_tokens, work.num_records, work.audio_seconds) == (17, 4, 3, 3.5)


def test_a_fifth_question_begins_another_group():
    questions = [example("dog", [5, 9, 9, 9, 6, 10 + number, 20], num_supervised=1) for number in range(5)]
    # Four share a prefix of five and add two each; the fifth stands alone with its seven.
    assert useful_decoder_work(questions)[0] == 5 + 4 * 2 + 7
