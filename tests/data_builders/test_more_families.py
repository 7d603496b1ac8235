"""Keywords, acoustic features, chords and descriptions of three lengths: right answers, and what is not asked."""

from dataclasses import replace

import numpy as np
import pytest
from invented_corpora import tone
from test_question_relations import CLIPS, THREE, questions, reasons, scene
from test_soundfont import soundfont_bytes

from data_builders.clips import SAMPLE_RATE_HZ, seeded
from data_builders.debs import Fetched
from data_builders.features import measured
from data_builders.questions import Context, IllPosed, Question, Subject, ask
from data_builders.questions.acoustic import FEATURES
from data_builders.questions.music import CHORDS
from data_builders.questions.told import KEYS
from data_builders.sources.chords import CADENCES, LABELS, plan_cadence, plan_chord, read_clips
from data_builders.sources.soundfont import INSTRUMENTS

TEXTS = {"a": "please hold the line", "b": "press seven to hear the message", "c": "holding pattern presses on"}
CONTEXT = Context(
    (), (), (), {key: {"English": text, "French": "bonjour tout le monde"} for key, text in TEXTS.items()}
)
SPEECH = replace(CLIPS["p-En-01"], text=TEXTS["a"], language="English")


def of_speech(clip, number=200):
    return [ask("keyword", Subject("s", clip), CONTEXT, seeded("keyword", draw)) for draw in range(number)]


def test_a_keyword_is_said_or_surely_not():
    asked = of_speech(SPEECH)
    assert all(isinstance(question, Question) for question in asked)
    said = {question.slots["word"] for question in asked if question.answer == "yes"}
    absent = {question.slots["word"] for question in asked if question.answer == "no"}
    assert said == {"please", "hold", "line"}
    # "holding" is a form of a word that is said; French words and short ones are not asked for.
    assert absent == {"press", "seven", "hear", "message", "pattern", "presses"}
    assert 70 < sum(question.answer == "yes" for question in asked) < 130
    near = sum(question.slots["word"] in ("press", "presses", "pattern", "hear") for question in asked)
    assert near > sum(question.answer == "no" for question in asked) / 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"text": None}, "no transcript"),
        ({"text": "hold on"}, "fewer than three words"),
        ({"text": "a b c d"}, "none long enough"),
        ({"language": "Italian"}, "no other words of this language"),
    ],
)
def test_a_keyword_is_not_asked_for(change, reason):
    assert all(isinstance(found, IllPosed) and reason in found.reason for found in of_speech(replace(SPEECH, **change)))


def sound(**features):
    return Subject("s", CLIPS["s-0-0"], features=features)


def test_a_feature_is_asked_for_where_it_is_clear():
    found = questions("acoustic_feature", sound(brightness_hz=3000.0, sounding_seconds=1.0))
    assert {(question.answer, question.meta["measured"]) for question in found} == {("bright", 3000.0)}
    assert {question.choices for question in found} == {("bright", "dark"), ("dark", "bright")}
    assert reasons("acoustic_feature", sound(brightness_hz=1500.0, sounding_seconds=1.0))
    assert reasons("acoustic_feature", Subject("s", SPEECH, features={"brightness_hz": 3000.0}))
    assert reasons("acoustic_feature", THREE)


def test_features_are_told_in_a_sentence():
    notes = replace(CLIPS["i-0-0-0"], facts={"notes": [84, 80]})
    subject = Subject("i", notes, features={"brightness_hz": 500.0, "sounding_seconds": 0.4})
    (found,) = {question.answer for question in questions("acoustic_features", subject)}
    assert found == "The sound is dark, short and high-pitched."
    # A variant was played at another speed: its notes are not those that are written.
    assert "pitched" not in questions("acoustic_features", replace(subject, original=False))[0].answer
    assert reasons("acoustic_features", sound(brightness_hz=500.0)) == {"fewer than two features are clear"}


def test_the_brighter_of_two():
    pair = replace(sound(brightness_hz=500.0), second=sound(brightness_hz=900.0))
    assert {question.answer for question in questions("pair_brighter", pair)} == {"the second"}
    turned = replace(sound(brightness_hz=900.0), second=sound(brightness_hz=500.0))
    assert {question.answer for question in questions("pair_brighter", turned)} == {"the first"}
    close = replace(sound(brightness_hz=700.0), second=sound(brightness_hz=900.0))
    assert reasons("pair_brighter", close) == {"no clear margin to call one brighter"}


def test_what_is_measured_is_what_is_there():
    quiet = np.zeros(SAMPLE_RATE_HZ // 2, np.float32)
    for frequency in (300.0, 1200.0, 4000.0):
        found = measured(np.concatenate([quiet, tone(frequency, 0.8), quiet]))
        assert found["sounding_seconds"] == pytest.approx(0.8, abs=0.021)
        assert found["brightness_hz"] == pytest.approx(frequency, rel=0.3)  # a tone that is cut has a skirt
    assert measured(quiet) == {}
    assert measured(quiet[:3]) == {}
    assert set(found) | {"pitch"} == set(FEATURES)


def test_descriptions_have_three_lengths():
    lengths = [
        {len(question.answer.split()) for question in questions(task, THREE)}
        for task in ("description_short", "description", "description_long")
    ]
    assert max(lengths[0]) < min(lengths[1])
    assert max(lengths[1]) < min(lengths[2])
    (short,) = {question.answer for question in questions("description_short", THREE)}
    assert short == "bell, drone and whoosh"
    (long,) = {question.answer for question in questions("description_long", THREE)}
    assert long == (
        "Three sounds can be heard. First, at 0.0 seconds, a quiet long sound of a bell. "
        "Then, at 2.0 seconds, a short sound of a drone. Then, at 3.0 seconds, a loud sound of a whoosh."
    )
    filtered = scene(("bell", 0, 1, -20), ("drone", 2, 1, -20), effects={"filter": "low"})
    assert reasons("description_long", filtered) == {"an effect changes how long and how loud a sound is"}
    spoken = questions("description_long", Subject("s", SPEECH))[0].answer
    assert spoken == 'Someone speaks English. The words are: "please hold the line"'
    bright = questions("description_long", sound(brightness_hz=3000.0))[0].answer
    assert bright == "The sound of a kick drum. It is bright."
    assert reasons("description_long", sound()) == {"nothing is known beside the label"}


def test_the_kind_of_a_chord():
    subject = Subject("c", replace(CLIPS["i-0-0-0"], facts={"chord": "minor"}))
    for question in questions("chord", subject):
        assert question.answer == "minor"
        assert set(question.choices) == set(CHORDS)
    assert reasons("chord", Subject("c", CLIPS["i-0-0-0"])) == {"no single chord is known"}


def test_chords_are_what_they_are_called():
    for draw in range(60):
        progression, facts = plan_chord(5, (48, 84), seeded("chord", draw))
        (chord,) = progression.chords
        assert tuple(key - chord[0] for key in chord) == CHORDS[facts["chord"]]
        progression, facts = plan_cadence(5, (48, 84), seeded("cadence", draw))
        assert facts["key"] in KEYS
        assert KEYS.index(facts["key"]) // 2 == progression.chords[-1][0] % 12
        mode = facts["key"].split()[-1]
        assert len(progression.chords) == len(CADENCES[mode])
        assert progression.beat_seconds == pytest.approx(60 / facts["tempo_bpm"], abs=0.001)


def test_the_source_renders_chords_of_the_presets_that_there_are(tmp_path, monkeypatch):
    (tmp_path / "tiny.sf2").write_bytes(soundfont_bytes())
    monkeypatch.setitem(INSTRUMENTS, "piano", {"programs": (5, 6), "keys": (57, 81)})
    fetched = {"timgm6mb-soundfont": Fetched("timgm6mb-soundfont", "1", "0" * 64, tmp_path, ("tiny.sf2",))}
    clips, skipped = read_clips(fetched, seed=0)
    assert len(clips) == 12
    assert {clip.group for clip in clips} == {"gm-005"}
    assert len(skipped) == 1 + sum(len(INSTRUMENTS[label]["programs"]) for label in LABELS[1:])
    chord = next(clip for clip in clips if "chord" in clip.facts)
    wave = chord.render()
    spectrum = np.abs(np.fft.rfft(wave[:SAMPLE_RATE_HZ]))
    for key in chord.provenance["chords"][0]:
        hertz = round(440 * 2 ** ((key - 69) / 12))
        assert spectrum[hertz - 3 : hertz + 4].max() > 20 * np.median(spectrum)
    assert {ask("musical_key", Subject("c", clip), CONTEXT, seeded(0)).answer for clip in clips if "key" in clip.facts}
