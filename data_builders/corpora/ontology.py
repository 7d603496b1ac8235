"""The classes of AudioSet: names by machine id (mid), and which class is a kind of which."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from data_builders.corpora.base import Report
from data_builders.corpora.names import label_of
from data_builders.corpora.rows import csv_rows, json_rows
from lalm.errors import DataError

TABLES = ("ontology.json", "class_labels_indices.csv", "mid_to_display_name.tsv")


@dataclass
class Ontology:
    """`names`: by mid. `parents`: the mids that each mid is a kind of; a class may have several."""

    names: dict[str, str] = field(default_factory=dict)
    parents: dict[str, list[str]] = field(default_factory=dict)

    def broader(self, mid: str) -> set[str]:
        """The names of all classes above one."""
        found: set[str] = set()
        waiting = list(self.parents.get(mid, ()))
        while waiting:
            parent = waiting.pop()
            if parent in self.names and self.names[parent] not in found:
                found.add(self.names[parent])
                waiting += self.parents.get(parent, ())
        return found


def read_ontology(folder: Path, report: Report) -> Ontology:
    """Whatever of TABLES lies in a folder; the names of the later ones count, as the strong labels have more classes.

    Raises:
        DataError: where none does.
    """
    ontology = Ontology()
    tree, labels, names = (folder / name for name in TABLES)
    if tree.is_file():
        for row in json_rows(tree, report):
            ontology.names[row.text("id")] = label_of(row.text("name"))
            for child in row.texts("child_ids"):
                ontology.parents.setdefault(child, []).append(row.text("id"))
    if labels.is_file():
        for row in csv_rows(labels, ("mid", "display_name"), report):
            ontology.names[row.text("mid")] = label_of(row.text("display_name"))
    if names.is_file():
        for row in csv_rows(names, (), report, names=("mid", "name"), delimiter="\t", quoted=False):
            ontology.names[row.text("mid")] = label_of(row.text("name"))
    if not ontology.names:
        raise DataError(f"{folder}: has none of {', '.join(TABLES)}, which name the classes.")
    return ontology
