"""mClothoAQA: ClothoAQA in eight languages, three columns, the language in the file's name; cp1252 where not UTF-8."""

from __future__ import annotations

from data_builders.formats.base import Format, Hints, Row, Values, closed_type, question_answer
from data_builders.formats.clotho_aqa import write

LANGUAGES = {
    "eng": "en",
    "french": "fr",
    "hindi": "hi",
    "german": "de",
    "spanish": "es",
    "italian": "it",
    "dutch": "nl",
    "portuguese": "pt",
}


def read(row: Row, hints: Hints) -> Values:
    words = hints.stem.lower().split("_")
    language = next((LANGUAGES[word] for word in words if word in LANGUAGES), None)
    answer = row.need("answer")
    value = {
        "audio": [row.need("file_name")],
        "turns": question_answer(row.need("QuestionText"), answer),
        "answer_type": "yes_no" if "binary" in words else closed_type(answer),
        "source": "mclotho_aqa",
        "split": hints.split,
    }
    return {**value, "meta": {"language": language}} if language else value


MCLOTHO_AQA = Format(
    "mclotho_aqa",
    "mClothoAQA",
    "csv",
    "one clip, one question, its answer",
    "github.com/swarupbehera/mAQA, {binary,single_word}_{train,val,test}_LANGUAGE.csv",
    read,
    write,
    columns=("file_name", "QuestionText", "answer"),
    fallback_encoding="cp1252",
)
