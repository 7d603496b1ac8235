"""VoxCeleb 1 and 2: utterances of celebrities, wav/id10001/VIDEO/00001.wav. Its "dev" is for training; no words are
told.

Source: Nagrani, Chung, Zisserman, "VoxCeleb: a large-scale speaker identification dataset", Interspeech 2017.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from data_builders.clips import Split
from data_builders.corpora.base import Audio, BadRow, Corpus, Recording, Report, each
from data_builders.corpora.places import audio_files
from data_builders.corpora.rows import Row, csv_rows

SPLITS: dict[str, Split] = {"dev": "train", "test": "test"}


def _read(folder: Path, report: Report) -> Iterator[Recording]:
    people: dict[str, dict[str, str]] = {}
    for table in sorted(folder.glob("vox*_meta.csv")):
        # VoxCeleb1 is cut by tabs, VoxCeleb2 by commas.
        delimiter = "\t" if "\t" in table.read_text(encoding="utf-8-sig").partition("\n")[0] else ","
        for row in csv_rows(table, ("Gender", "Set"), report, delimiter=delimiter):
            told = {key.strip(): str(value).strip() for key, value in row.values.items()}
            people[next(value for key, value in told.items() if key.endswith("ID") and value.startswith("id"))] = told

    def recording(row: Row) -> Recording:
        path: Path = row.path
        speaker, video = path.parts[-3:-1]
        if speaker not in people:
            raise BadRow("speaker", f"'{speaker}' is not in vox1_meta.csv")
        person = people[speaker]
        return Recording(
            id=f"{speaker}-{video}-{path.stem}",
            audio=Audio(path),
            split=SPLITS.get(person["Set"]),
            group=f"speaker-{speaker}",
            speaker=speaker,
            sex={"m": "male", "f": "female"}.get(person["Gender"]),
            extra={"nationality": person["Nationality"]} if person.get("Nationality") else {},
        )

    return each((Row(path, 0, {}) for path in audio_files(folder / "wav")), recording, report)


CORPUS = Corpus(
    "voxceleb", "speech", "CC-BY-4.0 (labels; the audio is its uploaders')", "https://mm.kaist.ac.kr/datasets/voxceleb/",
    "vox1_meta.csv (or vox2_meta.csv) and wav/ with folders of speakers, dev and test together.",
    ("vox*_meta.csv", "wav"), _read,
)  # fmt: skip
