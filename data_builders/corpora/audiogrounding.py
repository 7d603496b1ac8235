"""AudioGrounding 2: captions of AudioCaps whose every phrase has the times at which it is heard.

Source: Xu, Dinkel, Wu, Yu, "Text-to-Audio Grounding: Building Correspondence Between Captions and Sound Events",
ICASSP 2021.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_builders.corpora.base import Audio, BadRow, Corpus, Recording, Report, Span, each
from data_builders.corpora.names import joined, split_named
from data_builders.corpora.places import one_of
from data_builders.corpora.rows import Row, json_rows


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    def recording(row: Row) -> Recording:
        name, part = row.text("audio_id").removesuffix(".wav"), row.path.stem
        events = []
        for phrase in row.values.get("phrases") or ():
            for segment in phrase.get("segments") or ():
                if len(segment) != 2 or not 0 <= segment[0] < segment[1]:
                    raise BadRow("segments", f"{segment} is not [onset, offset]")
                events.append(Span(joined(phrase["phrase"]), float(segment[0]), float(segment[1])))
        return Recording(
            id=f"{row.text('audiocap_id')}-{name}",
            audio=Audio(one_of(folder / "audio" / part, (name,), "audio_id")),
            split=split_named(part),
            group=f"youtube-{name.removeprefix('Y')}",
            captions=(joined(row.values.get("tokens") or row.text("tokens")),),
            events=tuple(sorted(events, key=lambda event: (event.onset, event.offset))),
        )

    for part in ("train", "val", "test"):
        if (folder / f"{part}.json").is_file():
            yield from each(json_rows(folder / f"{part}.json", report), recording, report)


CORPUS = Corpus(
    name="audiogrounding",
    kind="sound",
    licence="CC-BY-4.0 (labels; the audio is its uploaders')",
    homepage="https://zenodo.org/records/7269161",
    download="train.json, val.json, test.json, and the clips unpacked to audio/train, audio/val, audio/test.",
    layout=("*.json", "audio"),
    read=_read,
)
