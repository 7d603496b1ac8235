"""Corpora without a layout of their own: a folder, tables, saved datasets, Kaldi, NeMo and Lhotse manifests, tars."""

import gzip
import json
import tarfile

import numpy as np
import pytest
from invented_layouts import noise_bytes, read_corpus, tar_of, write_corpus

from data_builders.clips import SAMPLE_RATE_HZ
from data_builders.corpora.places import probe_seconds, read_audio
from lalm.audio.io import load_audio
from lalm.errors import AudioError, DataError


def told(problems):
    return [str(problem).partition(": ")[2] for problem in problems]


def test_a_folder_tells_splits_and_labels(tmp_path):
    files = ["train/dog_bark/1.wav", "test/dog_bark/1.flac", "bell/2.wav", "3.wav"]
    write_corpus(tmp_path, {"corpus.yaml": "licence: CC0-1.0\n", "bell/notes.txt": "x", ".hidden/4.wav": "x"}, files)
    clips, problems = read_corpus("folder", tmp_path)
    assert [(clip.id, clip.split, clip.labels, clip.licence) for clip in clips] == [
        ("3", None, (), "CC0-1.0"),
        ("bell-2", None, ("bell",), "CC0-1.0"),
        ("test-dog_bark-1", "test", ("dog bark",), "CC0-1.0"),
        ("train-dog_bark-1", "train", ("dog bark",), "CC0-1.0"),
    ]
    assert problems == []


ABOUT = """
licence: CC-BY-4.0
audio: clips
tables: [meta/*.csv, meta/*.jsonl]
columns: {audio: file, labels: tags, captions: text, split: fold, pitch: note, speaker: who}
splits: {"5": test, "1": train}
separator: ";"
"""


def test_a_table_is_mapped_by_columns(tmp_path):
    csv = 'file,tags,text,fold,note,who\na.wav,dog; bark ,"A dog, near.",1,60,s1\nb.wav,,,5,,\n'
    rows = '{"file": "a.wav", "start": 0.02, "end": 0.06, "text": ["One.", "Two."], '
    rows += '"question": "What?", "answer": "It."}\n'
    write_corpus(
        tmp_path, {"corpus.yaml": ABOUT, "meta/a.csv": csv, "meta/b.jsonl": rows}, ["clips/a.wav", "clips/b.wav"]
    )
    clips, problems = read_corpus("table", tmp_path)
    first, second, third = clips
    assert (first.labels, first.captions, first.split, first.pitch, first.speaker, first.licence) == (
        ("dog", "bark"), ("A dog, near.",), "train", 60, "s1", "CC-BY-4.0",
    )  # fmt: skip
    assert (second.split, second.labels, second.pitch) == ("test", (), None)
    assert (third.captions, third.exchanges, third.id) == (("One.", "Two."), (("What?", "It."),), "clips-a-20-1")
    assert (third.audio.start, third.audio.is_part) == (0.02, True)
    assert problems == []
    whole = read_audio(first.audio)
    part = read_audio(third.audio)
    assert len(part) == round(0.04 * SAMPLE_RATE_HZ)
    assert probe_seconds(third.audio) == pytest.approx(0.04)
    assert len(whole) == round(0.1 * SAMPLE_RATE_HZ)


def test_malformed_rows_are_named_by_line_and_column_and_the_rest_goes_on(tmp_path):
    csv = (
        "audio,pitch,captions\n"
        "a.wav,sixty,x\n"
        "../secret.wav,1,x\n"
        "gone.wav,1,x\n"
        "a.wav,1\n"
        "a.wav,1,x,y\n"
        ",1,x\n"
        "a.wav,nan,x\n"
        "a.wav,61,good\n"
    )
    write_corpus(tmp_path / "c", {"t.csv": csv}, ["a.wav"])
    write_corpus(tmp_path, {}, ["secret.wav"])
    with (tmp_path / "c/t.csv").open("ab") as file:
        file.write(b"a.wav,62,\xff\xfe\n")
    clips, problems = read_corpus("table", tmp_path / "c")
    assert [clip.pitch for clip in clips] == [61]
    table = tmp_path / "c/t.csv"
    assert [str(problem) for problem in problems] == [
        f"{table}:2: pitch: 'sixty' is not a number",
        f"{table}:3: audio: '../secret.wav' leads out of {tmp_path / 'c'}",
        f"{table}:4: audio: there is no audio file 'gone.wav' in {tmp_path / 'c'}",
        f"{table}:5: captions: the row has 2 fields for 3 columns",
        f"{table}:6: column 4: the row has 4 fields for 3 columns",
        f"{table}:7: audio: is missing or empty",
        f"{table}:8: pitch: 'nan' is not a finite number",
        f"{table}:10: captions: is not utf-8",
    ]
    assert [problem.harmless for problem in problems].count(True) == 1


def test_a_ceiling_of_malformed_rows_stops_and_missing_audio_does_not_count(tmp_path):
    rows = "".join(f"gone-{number}.wav,1\n" for number in range(20)) + "a.wav,x\n" * 4
    write_corpus(tmp_path, {"t.csv": "audio,pitch\n" + rows}, ["a.wav"])
    assert len(read_corpus("table", tmp_path, max_malformed=4)[1]) == 24
    with pytest.raises(
        DataError, match=r"more than 3 malformed rows; the last: .*t\.csv:25: pitch: 'x' is not a number"
    ):
        read_corpus("table", tmp_path, max_malformed=3)


def test_json_is_read_one_object_at_a_time_with_its_line(tmp_path, monkeypatch):
    monkeypatch.setattr("data_builders.corpora.rows._JsonList.CHUNK", 7)
    rows = '[\n {"audio": "a.wav",\n  "captions": ["One, {odd} ] text \\" ."]},\n 3,\n {"audio": "b.wav"}]'
    write_corpus(tmp_path, {"t.json": rows, "corpus.yaml": "tables: [t.json]"}, ["a.wav"])
    clips, problems = read_corpus("table", tmp_path)
    assert [clip.captions for clip in clips] == [('One, {odd} ] text " .',)]
    assert told(problems) == ["is not an object", f"audio: there is no audio file 'b.wav' in {tmp_path}"]
    assert [problem.line for problem in problems] == [4, 5]
    (tmp_path / "t.json").write_text('[{"audio": "a.wav"},\n {"audio" "b.wav"}]')
    with pytest.raises(DataError, match=r"t\.json:2:\d+: is not JSON: Expecting ':' delimiter"):
        read_corpus("table", tmp_path)
    (tmp_path / "t.json").write_text('[{"audio": "a.wav"},')
    with pytest.raises(DataError, match=r"t\.json:1: ends within its list"):
        read_corpus("table", tmp_path)
    (tmp_path / "t.json").write_text('{"audio": "a.wav"}')
    with pytest.raises(DataError, match=r"t\.json:1: is not a list"):
        read_corpus("table", tmp_path)


def test_a_bad_line_of_jsonl_is_named_with_its_column(tmp_path):
    write_corpus(tmp_path, {"t.jsonl": '{"audio": "a.wav"}\n\n{"audio": }\n[1]\n'}, ["a.wav"])
    clips, problems = read_corpus("table", tmp_path)
    assert [clip.id for clip in clips] == ["a"]
    assert [str(problem) for problem in problems] == [
        f"{tmp_path}/t.jsonl:3: column 11: is not JSON: Expecting value",
        f"{tmp_path}/t.jsonl:4: is not an object",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("colums: {}", r"corpus\.yaml: colums: Extra inputs"),
        ("columns: {sound: x}", r"columns\.sound.*Facts: audio, id, split"),
        ("columns: [", r"is not YAML"),
        ("columns: {audio: nowhere}", r"column\(s\) \['nowhere'\] are missing\. Found: audio"),
        ("tables: [no.csv]", r"no table matches no\.csv"),
    ],
)
def test_a_mapping_that_does_not_fit_is_told(tmp_path, text, said):
    write_corpus(tmp_path, {"corpus.yaml": text, "t.csv": "audio\na.wav\n"}, ["a.wav"])
    with pytest.raises(DataError, match=said):
        read_corpus("table", tmp_path)


def test_the_same_id_twice_is_told(tmp_path):
    write_corpus(tmp_path, {"t.csv": "audio,id\na.wav,x\na.wav,x\n"}, ["a.wav"])
    clips, problems = read_corpus("table", tmp_path)
    assert len(clips) == 1
    assert told(problems) == ["id: 'x' stands twice; the first is kept"]


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    write_corpus(tmp_path, {"c/t.csv": "audio\nlink.wav\n"}, ["outside.wav"])
    (tmp_path / "c/link.wav").symlink_to(tmp_path / "outside.wav")
    assert told(read_corpus("table", tmp_path / "c")[1]) == [
        f"audio: 'link.wav' leads out of {tmp_path / 'c'} by a link"
    ]


def test_a_saved_dataset_is_read_with_its_audio(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {
        "sound": [{"bytes": noise_bytes("a"), "path": "a.wav"}, {"bytes": noise_bytes("b"), "path": "b.wav"}, None],
        "label": ["dog", "bell", "cow"],
    }
    binary = {"bytes": datasets.Value("binary"), "path": datasets.Value("string")}
    features = datasets.Features({"sound": binary, "label": datasets.Value("string")})
    saved = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": saved, "validation": saved.select([0])}).save_to_disk(str(tmp_path / "hub"))
    (tmp_path / "hub/corpus.yaml").write_text("columns: {audio: sound, labels: label}\nlicence: CC0-1.0\n")
    clips, problems = read_corpus("hub", tmp_path / "hub")
    assert [(clip.id, clip.split, clip.labels) for clip in clips] == [
        ("train-00000000", "train", ("dog",)),
        ("train-00000001", "train", ("bell",)),
        ("validation-00000000", "validation", ("dog",)),
    ]
    assert told(problems) == ["sound: holds no audio"]
    (tmp_path / "b.wav").write_bytes(noise_bytes("b"))
    assert np.array_equal(read_audio(clips[1].audio), load_audio(tmp_path / "b.wav", SAMPLE_RATE_HZ))
    assert probe_seconds(clips[1].audio) == pytest.approx(0.1)


def test_a_kaldi_folder(tmp_path):
    texts = {
        "wav.scp": "rec1 wav/one.wav\nrec2 sox in.wav - |\nrec3 wav/gone.wav\n",
        "segments": "u1 rec1 0.02 0.06\nu2 rec1 0.06 0.06\nu3 rec2 0 1\nu4 rec9 0 1\nu5 rec3 0 1\nu6 rec1\n",
        "text": "u1 hello there\n",
        "utt2spk": "u1 s1\n",
        "spk2gender": "s1 f\n",
        "utt2lang": "u1 it\n",
    }
    write_corpus(tmp_path / "train", texts, ["wav/one.wav"])
    clips, problems = read_corpus("kaldi", tmp_path / "train")
    (clip,) = clips
    assert (clip.id, clip.transcript, clip.speaker, clip.sex, clip.language, clip.split) == (
        "u1", "hello there", "s1", "female", "Italian", "train",
    )  # fmt: skip
    assert len(read_audio(clip.audio)) == round(0.04 * SAMPLE_RATE_HZ)
    assert told(problems) == [
        "end: the segment from 0.06 to 0.06 s has no length",
        "wav.scp: 'sox in.wav - |' is a command, which is not run; write the files and name them",
        "recording: 'rec9' is not in wav.scp",
        f"wav.scp: there is no audio file 'wav/gone.wav' in {tmp_path / 'train'}",
        "start: the line has 2 fields",
    ]
    (tmp_path / "train/segments").unlink()
    assert [clip.id for clip in read_corpus("kaldi", tmp_path / "train")[0]] == ["rec1"]


def test_nemo_manifests(tmp_path):
    train = '{"audio_filepath": "a.wav", "duration": 0.1, "text": "hi", "lang": "de"}\n'
    test = '{"audio_filepath": "a.wav", "offset": 0.05, "duration": 0.04, "text": "ho"}\n'
    test += '{"audio_filepath": "/etc/x.wav"}\n'
    write_corpus(tmp_path, {"train_manifest.json": train, "test_manifest.json": test}, ["a.wav"])
    clips, problems = read_corpus("nemo", tmp_path)
    assert [(clip.split, clip.transcript, clip.language, clip.audio.seconds, clip.audio.is_part) for clip in clips] == [
        ("test", "ho", None, 0.04, True),
        ("train", "hi", "German", 0.1, False),
    ]
    assert told(problems) == [f"audio_filepath: '/etc/x.wav' leads out of {tmp_path}"]


def test_lhotse_supervisions_and_cuts(tmp_path):
    recording = {"id": "r", "sources": [{"type": "file", "channels": [0], "source": "a.wav"}], "duration": 0.1}
    said = {"id": "s", "recording_id": "r", "start": 0.02, "duration": 0.05, "text": "hi", "language": "English",
            "gender": "female", "speaker": "x", "custom": {"emotion": "sad"}}  # fmt: skip
    pipe = {**recording, "id": "p", "sources": [{"type": "command", "source": "curl x"}]}
    folder = write_corpus(
        tmp_path / "one", {"dev_recordings.jsonl": "\n".join(map(json.dumps, (recording, pipe)))}, ["a.wav"]
    )
    with gzip.open(folder / "dev_supervisions.jsonl.gz", "wt") as out:
        out.write(json.dumps(said) + "\n" + json.dumps({**said, "id": "t", "recording_id": "p"}) + "\n")
    (folder / "dev_recordings.jsonl").rename(folder / "plain")
    with gzip.open(folder / "dev_recordings.jsonl.gz", "wt") as out:
        out.write((folder / "plain").read_text())
    clips, problems = read_corpus("lhotse", folder)
    (clip,) = clips
    assert (clip.id, clip.split, clip.transcript, clip.language, clip.sex, clip.emotion) == (
        "s", "validation", "hi", "English", "female", "sad",
    )  # fmt: skip
    assert len(read_audio(clip.audio)) == round(0.05 * SAMPLE_RATE_HZ)
    assert told(problems) == ["recording: names no audio file (one that is made by a command or fetched is not read)"]
    cut = {"id": "c", "start": 0.0, "duration": 0.1, "channel": 0, "recording": recording, "supervisions": [said]}
    two = {**cut, "id": "d", "supervisions": [said, said]}
    write_corpus(tmp_path / "two", {"train_cuts.jsonl": json.dumps(cut) + "\n" + json.dumps(two)}, ["a.wav"])
    ((clip,), problems) = read_corpus("lhotse", tmp_path / "two")
    assert (clip.id, clip.split, clip.transcript, clip.audio.start) == ("c", "train", "hi", 0.0)
    assert told(problems) == ["supervisions: the cut has 2; trim_to_supervisions makes one cut of each"]


def test_tars_are_read_in_place_and_refused_names_are_told(tmp_path):
    link = tarfile.TarInfo("evil.wav")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    members = [
        ("a.flac", noise_bytes("a", form="FLAC")),
        ("a.json", json.dumps({"tags": ["dog", "bark"], "note": 61}).encode()),
        ("../b.wav", noise_bytes("b")),
        ("/c.wav", noise_bytes("c")),
        ("d.wav", noise_bytes("d")),
        ("d.txt", b"A bell."),
        ("d.cls", b"bell"),
        ("e.txt", b"no audio"),
        ("f.wav", noise_bytes("f")),
        ("f.json", b'{"tags": '),
    ]
    tar_of(tmp_path / "set/train-000000.tar", members, [link])
    (tmp_path / "set/corpus.yaml").write_text("columns: {pitch: note}\n")
    clips, problems = read_corpus("webdataset", tmp_path / "set")
    assert [(clip.id, clip.split, clip.pitch, clip.captions, clip.labels) for clip in clips] == [
        ("train-000000-a", "train", 61, (), ()),
        ("train-000000-d", "train", None, ("A bell.",), ("bell",)),
        ("train-000000-f", "train", None, (), ()),
    ]
    (tmp_path / "d.wav").write_bytes(noise_bytes("d"))
    assert np.array_equal(read_audio(clips[1].audio), load_audio(tmp_path / "d.wav", SAMPLE_RATE_HZ))
    assert probe_seconds(clips[0].audio) == pytest.approx(0.1)
    assert told(problems) == [
        "member: '../b.wav' leads out of the archive",
        "member: '/c.wav' leads out of the archive",
        "e: the sample has no audio",
        "f.json, column 9: is not JSON: Expecting value",
        "member: 'evil.wav' is a link or a device, which is not read",
    ]


def test_a_cut_tar_is_told(tmp_path):
    tar_of(tmp_path / "a.tar", [("a.wav", noise_bytes("a", 2.0))])
    whole = (tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[:5000])
    with pytest.raises(DataError, match=r"a\.tar: is not a whole, unpacked tar"):
        read_corpus("webdataset", tmp_path)


def test_a_part_after_the_end_and_bytes_that_are_no_audio_are_told(tmp_path):
    write_corpus(tmp_path, {"t.csv": "audio,start,end\na.wav,0.5,0.6\n"}, ["a.wav"])
    ((clip,), _) = read_corpus("table", tmp_path)
    with pytest.raises(AudioError, match=r"a\.wav: ends before 0\.5 s"):
        read_audio(clip.audio)
    tar_of(tmp_path / "b.tar", [("x.wav", b"no audio at all")])
    ((clip,), _) = read_corpus("webdataset", tmp_path)
    with pytest.raises(AudioError, match=r"b\.tar: x\.wav"):
        read_audio(clip.audio)
