"""The names that corpora give to splits, languages and licences, as this project writes them."""

from __future__ import annotations

from data_builders.clips import Split

SPLIT_NAMES: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""What most corpora mean; one that means something else (Clotho's "development" is training) says so in its file."""

LANGUAGES = {
    "af": "Afrikaans", "am": "Amharic", "ar": "Arabic", "as": "Assamese", "az": "Azerbaijani", "be": "Belarusian",
    "bg": "Bulgarian", "bn": "Bengali", "bs": "Bosnian", "ca": "Catalan", "cs": "Czech", "cy": "Welsh",
    "da": "Danish", "de": "German", "el": "Greek", "en": "English", "eo": "Esperanto", "es": "Spanish",
    "et": "Estonian", "eu": "Basque", "fa": "Persian", "fi": "Finnish", "fil": "Filipino", "fr": "French",
    "ga": "Irish", "gl": "Galician", "gu": "Gujarati", "ha": "Hausa", "he": "Hebrew", "hi": "Hindi",
    "hr": "Croatian", "hu": "Hungarian", "hy": "Armenian", "id": "Indonesian", "ig": "Igbo", "is": "Icelandic",
    "it": "Italian", "ja": "Japanese", "jv": "Javanese", "ka": "Georgian", "kk": "Kazakh", "km": "Khmer",
    "kn": "Kannada", "ko": "Korean", "ky": "Kyrgyz", "lb": "Luxembourgish", "lo": "Lao", "lt": "Lithuanian",
    "lv": "Latvian", "mk": "Macedonian", "ml": "Malayalam", "mn": "Mongolian", "mr": "Marathi", "ms": "Malay",
    "mt": "Maltese", "my": "Burmese", "nb": "Norwegian", "ne": "Nepali", "nl": "Dutch", "oc": "Occitan",
    "pa": "Punjabi", "pl": "Polish", "ps": "Pashto", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian",
    "rw": "Kinyarwanda", "sd": "Sindhi", "sk": "Slovak", "sl": "Slovenian", "so": "Somali", "sr": "Serbian",
    "sv": "Swedish", "sw": "Swahili", "ta": "Tamil", "te": "Telugu", "tg": "Tajik", "th": "Thai",
    "tr": "Turkish", "tt": "Tatar", "uk": "Ukrainian", "ur": "Urdu", "uz": "Uzbek", "vi": "Vietnamese",
    "xh": "Xhosa", "yo": "Yoruba", "yue": "Cantonese", "zh": "Chinese", "cmn": "Chinese", "zu": "Zulu",
}  # fmt: skip
"""English names by ISO 639 code."""

YOUTUBE_ID = 11
"""Letters of the id of a video; what follows is a time."""

CREATIVE_COMMONS = {
    "zero": "CC0-1.0", "by": "CC-BY", "by-nc": "CC-BY-NC", "by-sa": "CC-BY-SA", "by-nd": "CC-BY-ND",
    "by-nc-sa": "CC-BY-NC-SA", "by-nc-nd": "CC-BY-NC-ND", "sampling+": "CC-Sampling-Plus",
}  # fmt: skip


def split_named(name: str | None) -> Split | None:
    """The split that a corpus's name stands for, whatever its case; None for another name."""
    return SPLIT_NAMES.get((name or "").strip().lower())


def split_in(name: str) -> Split | None:
    """The split that a part of a file's name stands for: "train_manifest.json", "cuts-dev.jsonl.gz", "test-000001"."""
    parts = name.partition(".")[0].replace("-", "_").split("_")
    return next(filter(None, map(split_named, parts)), None)


def language_named(code: str | None) -> str | None:
    """The English name of a language by its code ("en", "en_us", "zh-CN"); a name is kept, as is an unknown code."""
    if not code:
        return None
    return LANGUAGES.get(code.lower().replace("_", "-").partition("-")[0], code)


def licence_of(url: str | None) -> str:
    """An address of Creative Commons as a short name ("CC-BY-3.0"); anything else is kept."""
    text = (url or "").strip()
    if "creativecommons.org" not in text:
        return text
    parts = [part for part in text.split("creativecommons.org/", 1)[1].lower().split("/") if part]
    if len(parts) < 2 or parts[1] not in CREATIVE_COMMONS:
        return text
    name = CREATIVE_COMMONS[parts[1]]
    version = parts[2] if len(parts) > 2 else ""
    return name if parts[1] == "zero" or not version else f"{name}-{version}"


def label_of(text: str) -> str:
    """A label as words: no underscores, small letters."""
    return " ".join(text.replace("_", " ").split()).lower()


def joined(tokens: list[str] | str) -> str:
    """Tokens as a sentence: no space before a comma, a full stop or an "n't"."""
    text = " ".join(tokens) if isinstance(tokens, list) else tokens
    for end in (",", ".", "!", "?", ";", ":", "'s", "n't", "'re"):
        text = text.replace(f" {end}", end)
    return text
