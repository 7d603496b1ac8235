"""The prompts in the corpus's own layout, with its quirks: lost accents, notes to the reader, empty files."""

import pytest
from invented_corpora import prompts_package, wav_bytes

from data_builders.sources import asterisk
from data_builders.sources.asterisk import clean_text, read_clips

ROWS = {
    "en": {
        "vm-delete": "Press 7 to  delete this message.",
        "vm-save": "...delete  this message press 7 to",
        "beep": "[tone]",
        "hello": "Hello world",
        "letters/at": "at [@]",
        "letters/a": "a",
        "digits/0": "zero",
        "phonetic/c_p": "charlie",
        "spy-iax": "IAX",
        "silence/1": "(1 second of silence)",
        "gone": "There is no file",
        "INBOX": "new",
    },
    "es": {"vm-delete": "Marque siete para borrar el mensaje.", "digits/0": "cero", "phonetic/c_p": "Carlos"},
    "fr": {"vm-delete": "Appuyez sur 7 pour effacer le message", "digits/h-80": "soixante-dixième"},
    "it": {"vm-delete": "Premere 7 per cancellare", "vm-full": "La conferenza ? piena.", "hello": "Ciao (nota) mondo"},
    "ru": {"vm-delete": "Нажмите 8, чтобы удалить", "is": ".", "hello": "Привет мир"},
}


@pytest.fixture
def corpus(tmp_path):
    fetched = {}
    for code, rows in ROWS.items():
        sounds = {key: wav_bytes(1.5) for key in rows if key != "gone"} | {"no-text": wav_bytes(1.0)}
        if code == "ru":
            sounds["hello"] = b""
        fetched |= prompts_package(tmp_path, code, f"{code}_voice", rows, sounds)
    clips, skipped = read_clips(fetched, seed=0)
    return {clip.id: clip for clip in clips}, {entry.id: entry.reason for entry in skipped}


def test_texts_are_joined_to_files_and_cleaned(corpus):
    clips, _ = corpus
    assert clips["asterisk-en-vm-delete"].text == "Press 7 to delete this message."
    assert clips["asterisk-en-letters-at"].text == "at"
    assert clips["asterisk-it-vm-delete"].language == "Italian"
    assert "asterisk-en-inbox" in clips
    assert clips["asterisk-en-vm-delete"].seconds == pytest.approx(1.5)


def test_what_cannot_be_trusted_is_listed_with_its_reason(corpus):
    clips, skipped = corpus
    assert "accents" in skipped["asterisk-it-vm-full"]
    assert "note to the reader" in skipped["asterisk-it-hello"]
    assert skipped["asterisk-ru-is"] == "no text"
    assert skipped["asterisk-en-no-text"] == "no text for this file"
    assert "another file's" in skipped["asterisk-fr-digits-h-80"]
    assert "asterisk-ru-hello" in skipped
    assert not set(clips) & set(skipped)


@pytest.mark.parametrize("name", ["beep", "silence-1", "spy-iax", "gone"])
def test_tones_silence_and_protocol_names_are_no_speech(corpus, name):
    assert f"asterisk-en-{name}" not in corpus[0]


def test_a_digit_is_known_only_where_every_text_agrees(corpus):
    clips, _ = corpus
    assert clips["asterisk-en-vm-delete"].facts["digit"] == "seven"
    assert clips["asterisk-es-vm-delete"].facts["digit"] == "seven"
    assert "digit" not in clips["asterisk-ru-vm-delete"].facts
    assert clips["asterisk-es-digits-0"].facts["digit"] == "zero"


def test_code_words_that_are_not_the_international_ones_are_not_asked(corpus):
    clips, _ = corpus
    assert clips["asterisk-en-phonetic-c-p"].facts["word"] == "charlie"
    assert "word" not in clips["asterisk-es-phonetic-c-p"].facts


def test_a_prompt_and_its_near_copies_are_one_group_in_all_languages(corpus):
    clips, _ = corpus
    groups = {clips[f"asterisk-{code}-vm-delete"].group for code in ROWS}
    assert groups == {clips["asterisk-en-vm-save"].group}
    assert clips["asterisk-en-hello"].group not in groups
    assert clips["asterisk-en-letters-a"].group == "asterisk-en-letters-a"


def test_every_letter_has_its_groups_of_like_names():
    for letter in "abcdefghijklmnopqrstuvwxyz":
        for code in ("en", "ru"):
            assert asterisk._letter_sound(letter, code)


def test_clean_text_keeps_the_words():
    assert clean_text("... for  help [#] press one ...") == "for help press one"
