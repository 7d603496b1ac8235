"""A set from invented corpora, one of each kind of fact, built as `lalm data build` does."""

import json
from collections import Counter
from itertools import product

import pytest
import soundfile
from invented_layouts import write_corpus
from typer.testing import CliRunner

from data_builders.cli import app
from data_builders.clips import SPLITS, Clip, seeded
from data_builders.corpora import CORPORA
from data_builders.corpora.clips import corpus_clips
from data_builders.questions import ask
from data_builders.questions.base import Context, IllPosed, Question, Subject
from data_builders.questions.told import KEYS, key_named
from lalm.data.records import read_records

NUMBER = 6
ASKED = {
    "sound_name": "esc50",
    "description": "audiocaps",
    "event_order": "audioset_strong",
    "transcription": "librispeech",
    "translation": "fleurs",
    "emotion": "crema_d",
    "pair_speaker": "librispeech",
    "instrument_name": "nsynth",
    "pitch": "nsynth",
    "musical_key": "table",
    "tempo_bpm": "table",
    "told_question": "clotho_aqa",
}


def write_all(root):
    """One corpus of each kind of fact, six recordings or more in each split that it needs."""
    labels = ("dog", "rain", "bell")
    esc = [(fold, name, f"{fold}-{fold}{n}-A-{n}.wav") for n, name in enumerate(labels) for fold in (1, 2, 5)]
    table = "filename,fold,target,category,esc10,src_file,take\n"
    table += "".join(f"{name},{fold},0,{label},x,{name},A\n" for fold, label, name in esc)
    write_corpus(root / "esc50", {"meta/esc50.csv": table}, [f"audio/{name}" for _, _, name in esc], 0.6)
    ids = [f"{letter * 11}" for letter in "abcdefghijkl"]
    header = "audiocap_id,youtube_id,start_time,caption\n"
    parts = {"train": ids[:6], "test": ids[6:]}
    texts = {f"{part}.csv": header + "".join(f"1,{name},0,A dog and a {name}.\n" for name in names)
             for part, names in parts.items()}  # fmt: skip
    write_corpus(root / "audiocaps", texts, [f"audio/{name}.wav" for name in ids], 6.0)
    events = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
    texts = {"mid_to_display_name.tsv": "/m/a\tDog\n/m/b\tSiren\n"}
    for part, names in (("train", ids[:6]), ("eval", ids[6:])):
        spans = "".join(
            f"{name}_0\t0.1\t0.5\t/m/{'ab'[place % 2]}\n{name}_0\t1.0\t1.5\t/m/{'ba'[place % 2]}\n"
            for place, name in enumerate(names)
        )
        texts[f"audioset_{part}_strong.tsv"] = events + spans
    write_corpus(root / "audioset_strong", texts, [f"audio/{name}.wav" for name in ids], 2.0)
    texts, audio = {"SPEAKERS.TXT": "1 | F | train | 1 | A\n2 | M | test | 1 | B\n3 | M | test | 1 | C\n"}, []
    for subset, speakers in (("train-clean", ("1", "4")), ("test-clean", ("2", "3"))):
        for speaker in speakers:
            names = [f"{speaker}-9-{number:04d}" for number in range(NUMBER)]
            texts[f"{subset}/{speaker}/9/{speaker}-9.trans.txt"] = "".join(f"{n} THE WORDS OF {n[-1]}\n" for n in names)
            audio += [f"{subset}/{speaker}/9/{name}.flac" for name in names]
    write_corpus(root / "librispeech", texts, audio, 1.0)
    texts, audio = {}, []
    for part in ("train", "test"):
        ids_of = range(NUMBER) if part == "train" else range(NUMBER, 2 * NUMBER)
        for folder, said in (("en_us", "the car number {} is red"), ("it_it", "la macchina numero {} corre")):
            rows = [f"{n}\t{n}.wav\t{said.format(n)}\tx\tx\t16000\tMALE\n" for n in ids_of]
            texts[f"{folder}/{part}.tsv"] = "".join(rows)
            audio += [f"{folder}/audio/{part}/{n}.wav" for n in ids_of]
    write_corpus(root / "fleurs", texts, audio, 1.0)
    acted = [f"AudioWAV/10{actor:02d}_DFA_{code}_XX.wav" for actor in range(6) for code in ("ANG", "SAD", "HAP")]
    write_corpus(root / "crema_d", {}, acted, 1.0)
    for part in ("train", "test"):
        note = {"instrument_source_str": "acoustic", "velocity": 1, "qualities_str": []}
        told = {}
        for family, pitch in product(("guitar", "organ"), (60, 62, 64)):
            named = {"pitch": pitch, "instrument_str": f"{part}{family}", "instrument_family_str": family}
            told[f"{part}-{family}-{pitch}"] = {**note, **named}
        audio = [f"nsynth-{part}/audio/{name}.wav" for name in told]
        write_corpus(root / "nsynth", {f"nsynth-{part}/examples.json": json.dumps(told)}, audio, 0.5)
    songs = [f"{number},song{number}.wav,{'train' if number < 6 else 'test'},{key},{90 + number}"
             for number, key in enumerate(("A minor", "C major", "Eb major", "F# minor") * 3)]  # fmt: skip
    write_corpus(root / "table", {"t.csv": "id,audio,split,key,tempo_bpm\n" + "\n".join(songs)},
                 [f"song{number}.wav" for number in range(12)], 6.0)  # fmt: skip
    texts = {f"clotho_aqa_{part}.csv": "file_name,QuestionText,answer,confidence\n" + "".join(
        f"{part}{n}.wav,Is it loud?,{'yes' if n % 2 else 'no'},yes\n" * 2 for n in range(NUMBER))
        for part in ("train", "test")}  # fmt: skip
    write_corpus(root / "clotho_aqa", texts, [f"audio_files/{part}{n}.wav" for part in ("train", "test")
                                              for n in range(NUMBER)], 1.0)  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpora")
    write_all(root)
    recipe = {
        "name": "told",
        "sources": [{"corpus": name, "folder": str(root / name)} for name in sorted(set(ASKED.values()))],
        "clips": {
            "prompts": {"train": 60, "test": 60},
            "sounds_per_label": {"train": 2, "test": 1},
            "instruments_per_label": {"train": 3, "test": 3},
            "told": {"train": 80, "test": 80},
        },
        "questions": {
            "records": {split: {**dict.fromkeys(ASKED, 4), "description": 200} for split in ("train", "test")}
        },
        "filters": [{"name": "phrases"}],
        "output": {"form": "jsonl"},
    }
    (root / "told.yaml").write_text(json.dumps(recipe))  # JSON is YAML.
    done = CliRunner().invoke(app, ["build", str(root / "told.yaml"), "-o", str(root / "set"), "--workers", "1"])
    assert done.exit_code == 0, done.output
    return root / "set"


def test_every_kind_of_fact_is_asked_in_training_and_in_the_test(built):
    for split in ("train", "test"):
        records = list(read_records(built / f"{split}.jsonl"))
        asked = Counter(record.task for record in records)
        assert set(asked) == set(ASKED), split
        for record in records:
            sources = set(record.source.split("+"))
            speech = record.task in ("transcription", "pair_speaker", "description")
            assert ASKED[record.task] in sources or speech, record.id
            assert record.licence
            assert record.provenance["clips"][0]["source_id"]


def test_answers_are_what_the_corpora_tell(built):
    records = {split: list(read_records(built / f"{split}.jsonl")) for split in SPLITS}
    everything = [record for rows in records.values() for record in rows]
    by_task = {task: [record for record in everything if record.task == task] for task in ASKED}
    assert {record.answer for record in by_task["event_order"]} == {"dog", "siren"}
    assert {record.answer for record in by_task["told_question"]} == {"yes", "no"}
    assert {record.answer for record in by_task["pair_speaker"]} == {"yes", "no"}
    assert {record.answer for record in by_task["emotion"]} <= {"angry", "sad", "happy"}
    assert {record.answer for record in by_task["musical_key"]} <= {
        "A minor",
        "C major",
        "E flat major",
        "F sharp minor",
    }
    for record in by_task["translation"]:
        english = record.answer.startswith("the car number")
        assert english or record.answer.startswith("la macchina numero")
    captioned = [record for record in by_task["description"] if record.source == "audiocaps"]
    assert len(captioned) == 12
    for record in captioned:
        source = record.provenance["clips"][0]["source_id"]
        assert record.answer == f"A dog and a {source.partition('_')[0]}."
    assert not records["validation"]


def test_a_told_recording_is_stored_whole(built):
    record = next(record for record in read_records(built / "test.jsonl") if record.source == "audiocaps")
    assert soundfile.info(built / record.audio[0]).duration == pytest.approx(6.0, abs=0.3)


def test_a_weakly_labelled_clip_is_no_event_of_a_scene(tmp_path):
    from data_builders.selection import event_bank

    write_all(tmp_path)
    skipped = []
    strong = list(corpus_clips(CORPORA["audiocaps"], tmp_path / "audiocaps", skipped.append))
    alone = list(corpus_clips(CORPORA["esc50"], tmp_path / "esc50", skipped.append))
    splits = {clip.group: "train" for clip in [*strong, *alone]}
    assert set(event_bank([*strong, *alone], splits, "train")) == {"dog", "rain", "bell"}
    assert skipped == []


def one(facts, kind="sound", second=None):
    clip = Clip("x", None, 1.0, "invented", "CC0-1.0", "x", kind, facts=facts)
    subject = Subject("x", clip)
    return Subject("x", clip, second=second) if second else subject


@pytest.mark.parametrize(
    ("task", "subject", "reason"),
    [
        ("event_order", one({"told_events": [["dog", 0.0, 1.0], ["bell", 0.2, 1.0]]}), "begin apart"),
        ("event_order", one({"told_events": [["dog", 0, 1], ["dog", 2, 3], ["bell", 5, 6]]}), "occur once"),
        ("tempo_bpm", one({"tempo_bpm": 900.0}), "no tempo"),
        ("musical_key", one({"key": "H major"}), "no key"),
        ("emotion", one({}), "no emotion"),
        ("pair_speaker", one({"speaker": "a"}, second=one({})), "no two speakers"),
        ("told_question", one({"exchanges": []}), "no question"),
    ],
)
def test_what_is_ill_posed(task, subject, reason):
    question = ask(task, subject, Context((), (), ()), seeded(task))
    assert isinstance(question, IllPosed)
    assert reason in question.reason


def test_options_of_a_key_are_not_near_it():
    for draw in range(40):
        question = ask("musical_key", one({"key": "C"}), Context((), (), ()), seeded(draw))
        assert isinstance(question, Question)
        assert question.answer == "C major"
        assert not {"A minor", "C minor", "G major", "F major"} & set(question.choices)


@pytest.mark.parametrize(
    ("text", "key"),
    [("A minor", "A minor"), ("Am", "A minor"), ("Bb major", "B flat major"), ("f# min", "F sharp minor"),
     ("E-flat major", "E flat major"), ("C", "C major"), ("noise", None), (None, None)],
)  # fmt: skip
def test_keys_as_they_are_written(text, key):
    assert key_named(text) == key
    assert key is None or key in KEYS
