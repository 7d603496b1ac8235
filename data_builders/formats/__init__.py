"""Layouts of published sets and of other trainers, read and written: the table of their names."""

from __future__ import annotations

from data_builders.formats.audio_dialogues import AUDIO_DIALOGUES
from data_builders.formats.audio_flamingo import AUDIO_FLAMINGO
from data_builders.formats.audiosetcaps_qa import AUDIOSETCAPS_QA
from data_builders.formats.base import Format
from data_builders.formats.clotho_aqa import CLOTHO_AQA
from data_builders.formats.compa_r import COMPA_R
from data_builders.formats.daqa import DAQA
from data_builders.formats.hf_messages import HF_MESSAGES
from data_builders.formats.llava import LLAVA
from data_builders.formats.ltu import LTU, OPENAQA
from data_builders.formats.mclotho_aqa import MCLOTHO_AQA
from data_builders.formats.ms_swift import MS_SWIFT
from data_builders.formats.music_qa import MUSIC_QA
from data_builders.formats.salmonn import SALMONN
from data_builders.formats.slam_llm import SLAM_LLM
from data_builders.formats.speech_instruct import SPEECH_INSTRUCT
from data_builders.formats.table import TABLE
from lalm.errors import DataError

FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        TABLE,
        DAQA,
        AUDIOSETCAPS_QA,
        SPEECH_INSTRUCT,
        CLOTHO_AQA,
        MCLOTHO_AQA,
        OPENAQA,
        COMPA_R,
        AUDIO_DIALOGUES,
        MUSIC_QA,
        LTU,
        SALMONN,
        SLAM_LLM,
        AUDIO_FLAMINGO,
        LLAVA,
        MS_SWIFT,
        HF_MESSAGES,
    )
}


def format_named(name: str) -> Format:
    """
    Raises:
        DataError: for a name that is not in the table.
    """
    if name not in FORMATS:
        raise DataError(f"format: '{name}' is not known. Accepted: {', '.join(FORMATS)}.")
    return FORMATS[name]
