"""Corpora of speech and of music: each invented in its authors' layout, with the quirks that its file names."""

import json

import pytest
from invented_layouts import read_corpus, write_corpus

from data_builders.clips import SAMPLE_RATE_HZ
from data_builders.corpora.places import read_audio


def only(pairs):
    clips, problems = pairs
    assert problems == []
    return clips


def told(problems):
    return [f"{problem.line} {problem.column}: {problem.reason}" for problem in problems]


def test_librispeech(tmp_path):
    texts = {
        "SPEAKERS.TXT": "; comment\n19   | F | train-clean-100  | 25.1 | Kara | Shallenberg\n"
        "61 | M | test-clean | 8 | G\n",
        "train-clean-100/19/198/19-198.trans.txt": "19-198-0000 NORTHANGER ABBEY\n19-198-0001 THIS\n19-198-0002\n",
        "test-clean/61/70968/61-70968.trans.txt": "61-70968-0000 HE BEGAN\n",
    }
    write_corpus(tmp_path, texts, ["train-clean-100/19/198/19-198-0000.flac", "test-clean/61/70968/61-70968-0000.flac"])
    clips, problems = read_corpus("librispeech", tmp_path)
    assert [(clip.id, clip.split, clip.transcript, clip.speaker, clip.sex) for clip in clips] == [
        ("61-70968-0000", "test", "he began", "61", "male"),
        ("19-198-0000", "train", "northanger abbey", "19", "female"),
    ]
    assert told(problems) == [
        f"2 id: there is no audio file '19-198-0001.flac' in {tmp_path}/train-clean-100/19/198",
        "3 text: the line has 1 fields",
    ]


def test_common_voice(tmp_path):
    header = "client_id\tpath\tsentence\tup_votes\tage\tgender\taccents\tlocale\n"
    texts = {
        "it/train.tsv": header + 'abc\tcv_1.mp3\t"Ciao, disse.\t2\ttwenties\tmale_masculine\t\tit\n',
        "it/dev.tsv": header + "def\tcv_2\tArrivederci\t2\t\t\t\t\n",
        "it/validated.tsv": header + "abc\tcv_1.mp3\tCiao\t2\t\t\t\tit\n",
    }
    write_corpus(tmp_path, texts, ["it/clips/cv_1.mp3", "it/clips/cv_2.mp3"])
    clips = only(read_corpus("common_voice", tmp_path))
    assert [(clip.id, clip.split, clip.transcript, clip.language, clip.speaker, clip.sex) for clip in clips] == [
        ("cv_2", "validation", "Arrivederci", "Italian", "def", None),
        ("cv_1", "train", '"Ciao, disse.', "Italian", "abc", "male"),
    ]


def test_fleurs_translates_by_the_id_of_the_sentence(tmp_path):
    texts = {
        "en_us/train.tsv": '7\tx.wav\tA "fast" car.\ta fast car\ta | f\t1600\tMALE\n',
        "it_it/dev.tsv": "7\ty.wav\tUn'auto veloce.\tun auto\tu | n\t1600\tFEMALE\n8\tz.wav\tNo.\tno\tn\tx\tMALE\n",
    }
    write_corpus(tmp_path, texts, ["en_us/audio/train/x.wav", "it_it/audio/dev/y.wav", "it_it/audio/dev/z.wav"])
    clips, problems = read_corpus("fleurs", tmp_path)
    assert [(clip.split, clip.language, clip.translations, clip.group, clip.sex) for clip in clips] == [
        ("train", "English", {}, "sentence-7", "male"),
        ("validation", "Italian", {"English": 'A "fast" car.'}, "sentence-7", "female"),
    ]
    assert clips[0].audio.seconds == pytest.approx(0.1)
    assert told(problems) == ["2 num_samples: 'x' is not a number"]


def test_covost(tmp_path):
    texts = {
        "fr/validated.tsv": "client_id\tpath\tsentence\nabc\tcv_1.mp3\tBonjour.\ndef\tcv_2.mp3\tMerci.\n",
        "fr/covost_v2.fr_en.tsv": "path\ttranslation\tsplit\ncv_1.mp3\tHello.\ttrain_covost\ncv_2.mp3\tThanks.\tdev\n"
        "cv_3.mp3\tNo.\ttest\n",
    }
    write_corpus(tmp_path, texts, ["fr/clips/cv_1.mp3", "fr/clips/cv_2.mp3"])
    clips, problems = read_corpus("covost", tmp_path)
    assert [(clip.id, clip.split, clip.transcript, clip.translations, clip.language) for clip in clips] == [
        ("fr-en-cv_1", "train", "Bonjour.", {"English": "Hello."}, "French"),
        ("fr-en-cv_2", "validation", "Merci.", {"English": "Thanks."}, "French"),
    ]
    assert told(problems) == ["4 path: 'cv_3.mp3' is not in validated.tsv of Common Voice 4"]


def test_crema_d(tmp_path):
    texts = {"VideoDemographics.csv": "ActorID,Age,Sex,Race,Ethnicity\n1001,51,Male,Caucasian,Not Hispanic\n"}
    audio = ["AudioWAV/1001_DFA_ANG_XX.wav", "AudioWAV/1002_IEO_HAP_HI.wav", "AudioWAV/odd.wav"]
    write_corpus(tmp_path, texts, audio)
    clips, problems = read_corpus("crema_d", tmp_path)
    assert [(clip.emotion, clip.transcript, clip.sex, clip.group) for clip in clips] == [
        ("angry", "Don't forget a jacket.", "male", "actor-1001"),
        ("happy", "It's eleven o'clock.", None, "actor-1002"),
    ]
    assert told(problems) == ["0 name: is not ACTOR_SENTENCE_EMOTION_LEVEL"]


def test_iemocap(tmp_path):
    name = "Ses01F_impro01"
    turns = (
        "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
        f"[6.2901 - 8.2357]\t{name}_F000\tneu\t[2.5000, 2.5000, 2.5000]\nC-E2:\tNeutral;\t()\n"
        f"[10.01 - 11.39]\t{name}_M001\txxx\t[2.5, 2.5, 2.5]\n[12 - 13]\t{name}_M002\tbad\t[1, 1, 1]\n"
    )
    texts = {
        f"Session1/dialog/EmoEvaluation/{name}.txt": turns,
        f"Session1/dialog/transcriptions/{name}.txt": f"{name}_F000 [006.2901-008.2357]: Excuse me.\nF: noise\n",
    }
    write_corpus(
        tmp_path, texts, [f"Session1/sentences/wav/{name}/{name}_{turn}.wav" for turn in ("F000", "M001", "M002")]
    )
    clips, problems = read_corpus("iemocap", tmp_path)
    assert [(clip.emotion, clip.transcript, clip.sex, clip.speaker, clip.group) for clip in clips] == [
        ("neutral", "Excuse me.", "female", "Ses01F", "Session1"),
        (None, None, "male", "Ses01M", "Session1"),
    ]
    assert [(problem.line, problem.column) for problem in problems] == [(6, "emotion")]


def test_voxceleb(tmp_path):
    texts = {
        "vox1_meta.csv": "VoxCeleb1 ID\tVGGFace1 ID\tGender\tNationality\tSet\nid10001\tA.J._B\tm\tIreland\tdev\n",
        "vox2_meta.csv": "VoxCeleb2 ID ,VGGFace2 ID ,Gender,Set\nid00012 ,n000012 ,f ,test\n",
    }
    write_corpus(tmp_path, texts, ["wav/id10001/v_1/00001.wav", "wav/id00012/v2/00001.wav", "wav/id9/v/1.wav"])
    clips, problems = read_corpus("voxceleb", tmp_path)
    assert [(clip.id, clip.split, clip.sex, clip.extra) for clip in clips] == [
        ("id00012-v2-00001", "test", "female", {}),
        ("id10001-v_1-00001", "train", "male", {"nationality": "Ireland"}),
    ]
    assert told(problems) == ["0 speaker: 'id9' is not in vox1_meta.csv"]


def test_gigaspeech_reads_parts_of_long_files(tmp_path):
    segments = [
        {
            "sid": "P1_1",
            "begin_time": 0.02,
            "end_time": 0.06,
            "text_tn": "AND <COMMA> SO <PERIOD>",
            "subsets": ["{XL}"],
        },
        {"sid": "P1_2", "begin_time": 0.06, "end_time": 0.08, "text_tn": "<MUSIC>", "subsets": ["{XL}"]},
        {"sid": "P1_3", "begin_time": 0.06, "end_time": 0.06, "text_tn": "NO", "subsets": ["{XL}"]},
        {"sid": "P1_4", "begin_time": 0.08, "end_time": 0.1, "text_tn": "YES <QUESTIONMARK>", "subsets": ["{TEST}"]},
    ]
    told_of = {
        "dataset": "GigaSpeech",
        "audios": [{"aid": "P1", "path": "audio/podcast/P1.opus", "segments": segments}],
    }
    write_corpus(tmp_path, {"GigaSpeech.json": json.dumps(told_of, indent=1)}, ["audio/podcast/P1.opus"])
    clips, problems = read_corpus("gigaspeech", tmp_path)
    assert [(clip.id, clip.split, clip.transcript, clip.group) for clip in clips] == [
        ("P1_1", "train", "And, so.", "P1"),
        ("P1_4", "test", "Yes?", "P1"),
    ]
    assert len(read_audio(clips[0].audio)) == round(0.04 * SAMPLE_RATE_HZ)
    assert [(problem.column, problem.harmless) for problem in problems] == [("text_tn", True), ("end_time", False)]


def test_speechcraft_reads_what_corpus_yaml_names(tmp_path):
    said = [
        {
            "audio": "a.wav",
            "description": "A calm man speaks slowly.",
            "text": "Hello.",
            "gender": "male",
            "mood": "calm",
        }
    ]
    texts = {"annotations/en.json": json.dumps(said), "corpus.yaml": "audio: wavs\ncolumns: {emotion: mood}\n"}
    write_corpus(tmp_path, texts, ["wavs/a.wav"])
    (clip,) = only(read_corpus("speechcraft", tmp_path))
    assert (clip.captions, clip.transcript, clip.sex, clip.emotion, clip.language) == (
        ("A calm man speaks slowly.",), "Hello.", "male", "calm", "English",
    )  # fmt: skip
    assert clip.licence.startswith("non-commercial")


def test_musiccaps(tmp_path):
    header = "ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id,"
    header += "is_balanced_subset,is_audioset_eval\n"
    rows = (
        '-aaaaaaaaaa,30,40,"/m/a,/m/b","[\'low quality\', \'drums\']","Drums, fast.",4,False,True\n'
        "bbbbbbbbbbb,0,10,/m/a,\"['piano'\",A piano.,4,False,False\n"
        "ccccccccccc,0,10,/m/a,['piano'],A piano.,4,True,False\n"
    )
    write_corpus(
        tmp_path, {"musiccaps-public.csv": header + rows}, ["audio/-aaaaaaaaaa.wav", "audio/[ccccccccccc]-[0-10].wav"]
    )
    clips, problems = read_corpus("musiccaps", tmp_path)
    assert [(clip.split, clip.captions, clip.extra["aspects"]) for clip in clips] == [
        ("test", ("Drums, fast.",), ["low quality", "drums"]),
    ]
    assert [(problem.line, problem.column) for problem in problems] == [(3, "ytid"), (4, "ytid")]
    write_corpus(tmp_path, {}, ["audio/bbbbbbbbbbb_0.wav", "audio/ccccccccccc.wav"])
    clips, problems = read_corpus("musiccaps", tmp_path)
    assert [clip.split for clip in clips] == ["test", "train"]
    assert told(problems) == ["3 aspect_list: '['piano'' is not a list"]


def test_nsynth(tmp_path):
    note = {"instrument_str": "guitar_acoustic_015", "instrument_family_str": "synth_lead", "pitch": 60,
            "instrument_source_str": "acoustic", "velocity": 75, "qualities_str": ["bright"]}  # fmt: skip
    told_of = {"guitar_acoustic_015-060-075": note, "guitar_acoustic_015-200-075": {**note, "pitch": 200}}
    audio = [f"nsynth-valid/audio/{name}.wav" for name in told_of]
    write_corpus(tmp_path, {"nsynth-valid/examples.json": json.dumps(told_of)}, audio)
    clips, problems = read_corpus("nsynth", tmp_path)
    (clip,) = clips
    assert (clip.split, clip.instrument, clip.family, clip.pitch, clip.group) == (
        "validation", "acoustic synth lead", "synth lead", 60, "guitar_acoustic_015",
    )  # fmt: skip
    assert told(problems) == ["0 pitch: 200 is no MIDI number"]


def test_gtzan(tmp_path):
    write_corpus(tmp_path, {}, ["genres/blues/blues.00000.wav", "genres/hiphop/hiphop.00001.wav", "genres/odd/x.wav"])
    clips, problems = read_corpus("gtzan", tmp_path)
    assert [(clip.id, clip.labels, clip.split) for clip in clips] == [
        ("blues.00000", ("blues",), None),
        ("hiphop.00001", ("hip hop",), None),
    ]
    assert [problem.column for problem in problems] == ["genre"]


def test_mtg_jamendo_has_as_many_fields_as_tags(tmp_path):
    header = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS\n"
    train = "track_1\tartist_1\talbum_1\t48/948.mp3\t0.1\tgenre---rock\tgenre---poprock\tinstrument---electric_guitar\n"
    folder = "data/splits/split-0/autotagging-"
    texts = {
        f"{folder}train.tsv": header + train,
        f"{folder}validation.tsv": header,
        f"{folder}test.tsv": header + "track_2\n",
    }
    write_corpus(tmp_path, texts, ["audio/48/948.low.mp3"])
    clips, problems = read_corpus("mtg_jamendo", tmp_path)
    (clip,) = clips
    assert (clip.split, clip.labels, clip.instrument, clip.group) == (
        "train", ("rock", "poprock"), "electric guitar", "artist_1",
    )  # fmt: skip
    assert told(problems) == ["2 ARTIST_ID: the line has 1 fields"]


def test_magnatagatune_splits_by_its_folders(tmp_path):
    names = ["0/ab-cd-01-x-0-29.mp3", "c/ab-02-y-29-58.mp3", "f/ab-02-y-0-29.mp3"]
    rows = [f'"{number}"\t"{number % 2}"\t"1"\t"{name}"' for number, name in enumerate(names)]
    rows.append('"9"\t"1"\t"1"\t"x/a-0-29.mp3"')
    texts = {"annotations_final.csv": '"clip_id"\t"no voice"\t"guitar"\t"mp3_path"\n' + "\n".join(rows)}
    write_corpus(tmp_path, texts, names)
    clips, problems = read_corpus("magnatagatune", tmp_path)
    assert [(clip.split, clip.labels, clip.group) for clip in clips] == [
        ("train", ("guitar",), "ab-cd-01-x"),
        ("validation", ("no voice", "guitar"), "ab-02-y"),
        ("test", ("guitar",), "ab-02-y"),
    ]
    assert [problem.column for problem in problems] == ["mp3_path"]
