"""Corpora of sounds: each invented in its authors' layout, with the quirks that its file names."""

import json

import pytest
from invented_layouts import noise_bytes, read_corpus, tar_of, write_corpus

from data_builders.corpora.base import Span
from lalm.errors import DataError

ONTOLOGY = json.dumps(
    [
        {"id": "/m/dog", "name": "Dog", "child_ids": ["/m/bark"]},
        {"id": "/m/bark", "name": "Bark", "child_ids": []},
        {"id": "/m/animal", "name": "Animal", "child_ids": ["/m/dog"]},
    ]
)


def only(pairs):
    clips, problems = pairs
    assert problems == []
    return clips


def told(problems):
    return [f"{problem.line} {problem.column}: {problem.reason}" for problem in problems]


def test_esc50(tmp_path):
    header = "filename,fold,target,category,esc10,src_file,take\n"
    rows = "1-1-A-0.wav,1,0,sea_waves,True,1,A\n5-2-A-0.wav,5,1,dog,False,2,A\n1-3-A-0.wav,1,0,,True,3,A\n"
    write_corpus(tmp_path, {"meta/esc50.csv": header + rows}, ["audio/1-1-A-0.wav", "audio/5-2-A-0.wav"])
    clips, problems = read_corpus("esc50", tmp_path)
    assert [(clip.id, clip.split, clip.labels, clip.group) for clip in clips] == [
        ("1-1-A-0", "train", ("sea waves",), "freesound-1"),
        ("5-2-A-0", "test", ("dog",), "freesound-2"),
    ]
    assert told(problems) == [f"4 filename: there is no audio file '1-3-A-0.wav' in {tmp_path}/audio"]


def test_urbansound8k(tmp_path):
    header = "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
    rows = "1-3-0-0.wav,1,0.5,4.5,1,5,3,dog_bark\n2-3-0-0.wav,2,0,1,2,10,3,siren\n3-3-0-0.wav,3,zero,1,2,1,3,siren\n"
    audio = ["audio/fold5/1-3-0-0.wav", "audio/fold10/2-3-0-0.wav", "audio/fold1/3-3-0-0.wav"]
    write_corpus(tmp_path, {"metadata/UrbanSound8K.csv": header + rows}, audio)
    clips, problems = read_corpus("urbansound8k", tmp_path)
    assert [(clip.split, clip.labels, clip.audio.seconds, clip.extra) for clip in clips] == [
        ("train", ("dog bark",), 4.0, {"foreground": True}),
        ("test", ("siren",), 1.0, {"foreground": False}),
    ]
    assert told(problems) == ["4 start: 'zero' is not a number"]


def test_audioset(tmp_path):
    head = "# Segments\n# num_ytids=2\n# YTID, start_seconds, end_seconds, positive_labels\n"
    train = '--aaaaaaaaa, 30.000, 40.000, "/m/bark,/m/dog"\nbbbbbbbbbbb, 0.000, 10.000, "/m/none"\nccccccccccc, 0, 10\n'
    texts = {
        "balanced_train_segments.csv": head + train,
        "eval_segments.csv": head + 'ddddddddddd, 0.000, 9.500, "/m/dog"\n',
        "ontology.json": ONTOLOGY,
    }
    write_corpus(tmp_path, texts, ["audio/--aaaaaaaaa_30000.flac", "audio/Yddddddddddd.wav", "audio/bbbbbbbbbbb.wav"])
    clips, problems = read_corpus("audioset", tmp_path)
    assert [(clip.id, clip.split, clip.labels, clip.extra["broader"], clip.audio.seconds) for clip in clips] == [
        ("--aaaaaaaaa_30000", "train", ("bark", "dog"), ["animal", "dog"], 10.0),
        ("ddddddddddd_0", "test", ("dog",), ["animal"], 9.5),
    ]
    assert told(problems) == [
        "5 positive_labels: '/m/none' is no class of the ontology",
        "6 positive_labels: the row has 3 fields for 4 columns",
    ]


def test_audioset_strong(tmp_path):
    rows = (
        "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
        "a_aaaaaaaaa_30000\t2.5\t3.0\t/m/dog\n"
        "a_aaaaaaaaa_30000\t0.1\t1.0\t/m/bark\n"
        "bbbbbbbbbbb_0\t3.0\t2.0\t/m/dog\n"
    )
    texts = {"audioset_eval_strong.tsv": rows, "mid_to_display_name.tsv": "/m/dog\tDog\n/m/bark\tBark\n"}
    write_corpus(tmp_path, texts, ["audio/a_aaaaaaaaa_30.wav", "audio/bbbbbbbbbbb.wav"])
    clips, problems = read_corpus("audioset_strong", tmp_path)
    (clip,) = clips
    assert (clip.id, clip.split, clip.labels) == ("a_aaaaaaaaa_30000", "test", ("bark", "dog"))
    assert clip.events == (Span("bark", 0.1, 1.0), Span("dog", 2.5, 3.0))
    assert told(problems) == ["4 end_time_seconds: the event from 3 to 2 s has no length"]


def test_vggsound(tmp_path):
    rows = '---g-f_I2yQ,1,"people, marching",test\nbbbbbbbbbbb,20,dog barking,train\nccccccccccc,x,dog barking,train\n'
    write_corpus(tmp_path, {"vggsound.csv": rows}, ["audio/---g-f_I2yQ_000001.wav", "audio/bbbbbbbbbbb_000020.wav"])
    clips, problems = read_corpus("vggsound", tmp_path)
    assert [(clip.id, clip.split, clip.labels) for clip in clips] == [
        ("---g-f_I2yQ_000001", "test", ("people, marching",)),
        ("bbbbbbbbbbb_000020", "train", ("dog barking",)),
    ]
    assert told(problems) == ["3 start_seconds: 'x' is not a number"]


def test_fsd50k(tmp_path):
    texts = {
        "FSD50K.ground_truth/dev.csv": 'fname,labels,mids,split\n1,"Electric_guitar,Bird_and_fowl",m,val\n',
        "FSD50K.ground_truth/eval.csv": "fname,labels,mids\n2,Bark,m\n",
        "FSD50K.metadata/dev_clips_info_FSD50K.json": json.dumps(
            {"1": {"title": "T", "description": "D", "license": "http://creativecommons.org/licenses/by-nc/3.0/"}}
        ),
    }
    write_corpus(tmp_path, texts, ["FSD50K.dev_audio/1.wav", "FSD50K.eval_audio/2.wav"])
    first, second = only(read_corpus("fsd50k", tmp_path))
    assert (first.split, first.labels, first.licence) == (
        "validation",
        ("electric guitar", "bird and fowl"),
        "CC-BY-NC-3.0",
    )
    assert first.extra == {"title": "T", "description": "D"}
    assert (second.split, second.labels, second.group) == ("test", ("bark",), "freesound-2")


def test_clotho(tmp_path):
    header = "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
    texts = {
        "clotho_captions_development.csv": header + '"a; b.wav",A.,B.,"C, d.",D.,E.\n',
        "clotho_captions_evaluation.csv": header + "a.wav,A.,B.,C.,D.,E.\nb.wav,A.,B.,,D.,E.\n",
        "clotho_metadata_evaluation.csv": "file_name,keywords,sound_id,license\na.wav,x,Not found,\n",
    }
    write_corpus(tmp_path, texts, ["development/a; b.wav", "evaluation/a.wav", "evaluation/b.wav"])
    info = 'file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license\n"a; b.wav",rain;roof,77,,,'
    by = "J\xf6rg,http://creativecommons.org/publicdomain/zero/1.0/\n"
    (tmp_path / "clotho_metadata_development.csv").write_bytes((info + by).encode("latin-1"))
    clips, problems = read_corpus("clotho", tmp_path)
    assert [(clip.id, clip.split, clip.group, clip.licence) for clip in clips] == [
        ("development-a; b", "train", "freesound-77", "CC0-1.0"),
        ("evaluation-a", "test", "", ""),
    ]
    assert clips[0].captions == ("A.", "B.", "C, d.", "D.", "E.")
    assert clips[0].extra == {"keywords": ["rain", "roof"]}
    assert told(problems) == ["3 caption_3: is missing or empty"]


def test_clotho_aqa(tmp_path):
    rows = "".join(f"a.wav,Is it raining?,{answer},yes\n" for answer in ("yes", "no", "Yes"))
    rows += "".join(f"a.wav,What is it?,{answer},yes\n" for answer in ("rain", "water", "noise"))
    texts = {"clotho_aqa_val.csv": "file_name,QuestionText,answer,confidence\n" + rows}
    write_corpus(tmp_path, texts, ["audio_files/a.wav"])
    (clip,) = only(read_corpus("clotho_aqa", tmp_path))
    assert (clip.split, clip.exchanges) == ("validation", (("Is it raining?", "yes"),))
    assert clip.extra["answers"]["What is it?"] == {"rain": 1, "water": 1, "noise": 1}


def test_audiocaps(tmp_path):
    header = "audiocap_id,youtube_id,start_time,caption\n"
    test = "".join(f"{number},bbbbbbbbbbb,20,Caption {number}.\n" for number in range(5))
    texts = {
        "train.csv": header + '1,aaaaaaaaaaa,30,"an engine with muffled\nspeech behind"\n2,ccccccccccc,0,\n',
        "test.csv": header + test,
    }
    write_corpus(tmp_path, texts, ["audio/Yaaaaaaaaaaa.wav", "audio/bbbbbbbbbbb_20.wav", "audio/ccccccccccc.wav"])
    clips, problems = read_corpus("audiocaps", tmp_path)
    assert [(clip.id, clip.split, len(clip.captions)) for clip in clips] == [
        ("aaaaaaaaaaa_30", "train", 1),
        ("bbbbbbbbbbb_20", "test", 5),
    ]
    assert clips[0].captions == ("an engine with muffled speech behind",)
    assert told(problems) == ["4 caption: is missing or empty"]


def entry(name, **more):
    return {"id": name, "caption": "A kettle whistles.", "duration": 4.2, "audio": "wav_path", **more}


def test_wavcaps_leaves_out_what_the_blacklists_name(tmp_path):
    texts = {
        "json_files/FreeSound/fsd_final.json": json.dumps({"data": [entry("77", title="T"), entry("78"), entry("79")]}),
        "json_files/AudioSet_SL/as_final.json": json.dumps({"data": [entry("Yaaaaaaaaaaa.wav"), entry("Yb.wav")]}),
        "json_files/blacklist/blacklist_exclude_all_ac.json": json.dumps({"FreeSound": ["78"], "AudioSet": ["Yb.wav"]}),
        "json_files/blacklist/blacklist_exclude_test_ac.json": json.dumps({"FreeSound": [], "AudioSet": []}),
    }
    audio = ["audio/FreeSound/77.flac", "audio/FreeSound/78.flac", "audio/AudioSet_SL/Yaaaaaaaaaaa.flac"]
    write_corpus(tmp_path, texts, audio)
    clips, problems = read_corpus("wavcaps", tmp_path, max_malformed=0)
    assert [(clip.id, clip.group, clip.audio.seconds) for clip in clips] == [
        ("AudioSet_SL-Yaaaaaaaaaaa", "youtube-aaaaaaaaaaa", 4.2),
        ("FreeSound-77", "freesound-77", 4.2),
    ]
    assert clips[1].captions == ("A kettle whistles.",)
    assert sorted(problem.reason for problem in problems) == [
        "'78' is on a blacklist: a test set holds it",
        "'Yb' is on a blacklist: a test set holds it",
        f"there is no audio file '79.wav' (or alike) in {tmp_path}/audio/FreeSound",
    ]


def test_macs(tmp_path):
    told_of = """files:
- filename: park-paris-83-2499-a.wav
  annotations:
  - {annotator_id: 1, sentence: Birds sing., tags: [birds_singing, footsteps]}
  - {annotator_id: 2, sentence: Someone walks., tags: [footsteps]}
- filename: park-paris-83-2500-a.wav
  annotations: []
"""
    audio = ["audio/park-paris-83-2499-a.wav", "audio/park-paris-83-2500-a.wav"]
    write_corpus(tmp_path, {"MACS.yaml": told_of}, audio)
    clips, problems = read_corpus("macs", tmp_path)
    (clip,) = clips
    assert (clip.captions, clip.labels) == (("Birds sing.", "Someone walks."), ("birds singing", "footsteps"))
    assert (clip.group, clip.extra) == ("paris-83", {"scene": "park", "city": "paris"})
    assert told(problems) == ["0 annotations: hold no sentence"]


def test_auto_acd(tmp_path):
    texts = {
        "train.csv": "youtube_id,caption\naaaaaaaaaaa,One.\n",
        "test.csv": "youtube_id,caption\nbbbbbbbbbbb_000030,B.\n",
    }
    write_corpus(tmp_path, texts, ["audio/aaaaaaaaaaa.flac", "audio/bbbbbbbbbbb_000030.wav"])
    clips = only(read_corpus("auto_acd", tmp_path))
    assert [(clip.id, clip.split, clip.group) for clip in clips] == [
        ("aaaaaaaaaaa", "train", "youtube-aaaaaaaaaaa"),
        ("bbbbbbbbbbb_000030", "test", "youtube-bbbbbbbbbbb"),
    ]


def test_audiosetcaps(tmp_path):
    texts = {
        "AudioSetCaps_caption.csv": "id,caption\nYaaaaaaaaaaa,One.\n",
        "VGGSound_AudioSetCaps_caption.csv": "id,caption\nYbbbbbbbbbb_000030,Two.\n",
        "YouTube-8M_AudioSetCaps_caption.csv": "id,caption\nccccccccccc_84_10,Three.\n",
    }
    audio = ["audio/Yaaaaaaaaaaa.wav", "audio/Ybbbbbbbbbb_000030.wav", "audio/ccccccccccc_84_10.wav"]
    write_corpus(tmp_path, texts, audio)
    clips = only(read_corpus("audiosetcaps", tmp_path))
    assert [(clip.id, clip.group, clip.captions) for clip in clips] == [
        ("aaaaaaaaaaa", "youtube-aaaaaaaaaaa", ("One.",)),
        ("Ybbbbbbbbbb_000030", "youtube-Ybbbbbbbbbb", ("Two.",)),
        ("ccccccccccc_84_10", "youtube-ccccccccccc", ("Three.",)),
    ]


def test_sound_vecaps_prefers_the_table_of_what_can_be_heard(tmp_path):
    texts = {
        "Sound-VECaps_audio.csv": "id,caption\nYaaaaaaaaaaa,Heard.\n",
        "Sound-VECaps_full.csv": "id,caption\nYaaaaaaaaaaa,Seen.\n",
    }
    write_corpus(tmp_path, texts, ["audio/Yaaaaaaaaaaa.wav"])
    (clip,) = only(read_corpus("sound_vecaps", tmp_path))
    assert (clip.id, clip.captions) == ("aaaaaaaaaaa", ("Heard.",))


def test_audiogrounding(tmp_path):
    item = {
        "audiocap_id": 7,
        "audio_id": "Yaaaaaaaaaaa.wav",
        "tokens": ["A", "dog", "barks", ",", "then", "a", "man", "does", "n't", "speak"],
        "phrases": [
            {"phrase": ["a", "man"], "segments": [[2.0, 3.5]]},
            {"phrase": ["A", "dog", "barks"], "segments": [[0.1, 0.5], [1.0, 1.2]]},
        ],
    }
    bad = {**item, "audiocap_id": 8, "phrases": [{"phrase": ["x"], "segments": [[2, 1]]}]}
    write_corpus(tmp_path, {"val.json": json.dumps([item, bad])}, ["audio/val/Yaaaaaaaaaaa.wav"])
    clips, problems = read_corpus("audiogrounding", tmp_path)
    (clip,) = clips
    assert clip.captions == ("A dog barks, then a man doesn't speak",)
    assert clip.events == (Span("A dog barks", 0.1, 0.5), Span("A dog barks", 1.0, 1.2), Span("a man", 2.0, 3.5))
    assert told(problems) == ["1 segments: [2, 1] is not [onset, offset]"]


def test_audiodiffcaps_leaves_pairs_without_a_second_out(tmp_path):
    header = "key,s1_fn,s2_fn," + ",".join(f"caption_{number}" for number in range(1, 6)) + "\n"
    rows = "k0,k0_s1.wav,k0_s2.wav,remove the dog,remove dog,,,\n"
    rows += "k1,k1_s1.wav,k1_s2.wav,a,,,,\nk2,k0_s1.wav,k0_s2.wav,,,,,\n"
    folder = "datasets/adc_rain/dev"
    audio = [f"{folder}/audio/k0_s1.wav", f"{folder}/audio/k0_s2.wav", f"{folder}/audio/k1_s1.wav"]
    write_corpus(tmp_path, {f"{folder}/adc_rain_dev.csv": header + rows}, audio)
    clips, problems = read_corpus("audiodiffcaps", tmp_path)
    (clip,) = clips
    assert (clip.split, clip.captions) == ("train", ("remove the dog", "remove dog"))
    assert clip.other.path.name == "k0_s2.wav"
    assert [problem.column for problem in problems] == ["s2_fn", "caption_1"]


def test_wavtext5k(tmp_path):
    header = "view_link,download_link,title,description,fname,tags\n"
    rows = "v,d,Door,A door creaks.,1.wav,\"['door', 'wood_creak']\"\nv,d,Bell,,2.mp3,\nv,d,Bell,,1.wav,nonsense(\n"
    write_corpus(tmp_path, {"WavText5K.csv": header + rows}, ["WavText5K/1.wav", "WavText5K/2.wav"])
    clips, problems = read_corpus("wavtext5k", tmp_path)
    assert [(clip.id, clip.captions, clip.labels) for clip in clips] == [
        ("1", ("A door creaks.",), ("door", "wood creak")),
        ("2", ("Bell",), ()),
    ]
    assert told(problems) == ["4 tags: 'nonsense(' is not a list"]


def test_sounddescs_joins_the_lists_with_the_table_of_the_bbc(tmp_path):
    texts = {
        "train_list.txt": "nhu05104001\n",
        "val_list.txt": "\n",
        "test_list.txt": "07076051\n",
        "BBCSoundEffects.csv": "location,description,secs,category,CDNumber,CDName,tracknum\n"
        "NHU05104001.wav,Birds.,12.5,Nature: Birds,c,n,1\n"
        "07076051.wav,A motor.,9,Engines,c,n,2\n1.wav,Other.,9,,c,n,2\n",
    }
    write_corpus(tmp_path, texts, ["audio/NHU05104001.wav", "audio/07076051.wav"])
    clips = only(read_corpus("sounddescs", tmp_path))
    assert [(clip.split, clip.captions, clip.labels, clip.audio.seconds) for clip in clips] == [
        ("train", ("Birds.",), ("nature", "birds"), 12.5),
        ("test", ("A motor.",), ("engines",), 9.0),
    ]


def test_audiocaption_tells_splits_by_its_mandarin_tables(tmp_path):
    english = [{"filename": f"hospital_3707/{name}", "caption": "A nurse speaks"} for name in "aabc"]
    english[1]["caption"] = "A nurse talks"
    texts = {
        "hospital_en_all.json": json.dumps(english),
        "hospital_zh_dev.json": json.dumps([{"filename": "hospital_3707/a", "caption": "护士说话"}]),
        "hospital_zh_eval.json": json.dumps([{"filename": f"hospital_3707/{name}", "caption": "x"} for name in "bd"]),
    }
    write_corpus(tmp_path, texts, [f"hospital_3707/{name}.wav" for name in "abc"])
    clips, problems = read_corpus("audiocaption", tmp_path)
    assert [(clip.id, clip.split, clip.captions) for clip in clips] == [
        ("hospital_3707-a", "train", ("A nurse speaks", "A nurse talks")),
        ("hospital_3707-b", "test", ("A nurse speaks",)),
        ("hospital_3707-c", None, ("A nurse speaks",)),
    ]
    assert clips[0].extra == {"captions_zh": ["护士说话"]}
    assert told(problems) == ["1 filename: 'hospital_3707/d' has no English caption"]


def test_animalspeak(tmp_path):
    header = "i,url,source,recordist,species_common,species_scientific,caption,caption2,license\n"
    rows = (
        "5,https://xeno-canto.org/5/download,Xeno-canto,Ann,Great Tit,Parus major,A song.,Parus major.,\n"
        "6,https://static.inaturalist.org/sounds/6.mp3?1,iNaturalist,,,Rana,A frog.,,"
        "http://creativecommons.org/licenses/by-nc/4.0/\n"
    )
    write_corpus(tmp_path, {"AnimalSpeak_correct.csv": header + rows}, ["audio/5.wav", "audio/6.flac"])
    first, second = only(read_corpus("animalspeak", tmp_path))
    assert (first.labels, first.captions, first.group) == (
        ("great tit",),
        ("A song.", "Parus major."),
        "Xeno-canto-Ann",
    )
    assert (second.labels, second.licence, second.group) == (("rana",), "CC-BY-NC-4.0", "iNaturalist-6")


def test_laion_audio(tmp_path):
    told_of = {"text": ["The sounds of Harp"], "tag": ["Music", "Harp"], "original_data": {"license": "CC0-1.0"}}
    tar_of(
        tmp_path / "valid/0.tar", [("1.flac", noise_bytes("1", form="FLAC")), ("1.json", json.dumps(told_of).encode())]
    )
    (clip,) = only(read_corpus("laion_audio", tmp_path))
    assert (clip.split, clip.captions, clip.labels, clip.licence) == (
        "validation",
        ("The sounds of Harp",),
        ("Music", "Harp"),
        "CC0-1.0",
    )


@pytest.mark.parametrize("name", ["esc50", "audioset", "wavcaps", "clotho"])
def test_another_folder_is_told_the_layout(tmp_path, name):
    with pytest.raises(DataError, match=rf"is not {name}: there is no .*Expected in the folder"):
        read_corpus(name, tmp_path)
