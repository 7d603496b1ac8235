"""Group-wise splits: no clip, speaker or recording session stands on two sides, and old clips never move.

Records that share a key (the same clip, speaker, session, or declared group) belong together, and so do those joined
through others. A group's side comes from a hash of its coarsest key and the seed, so that adding data moves nothing;
a ledger of earlier splits goes first, for groups that later data joins to others. A record that would join two sides
of the ledger is rejected.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from data_builders.clips import SPLITS, Split
from data_builders.filters.base import KEPT, Verdict, atomic_text, rejected
from lalm.data.records import Record
from lalm.errors import DataError

GROUP_BY = ("speaker", "session", "clip")
"""Keys from coarse to fine. `clip` is the audio path with the declared groups of its source clips."""
SHARES: dict[Split, float] = {"train": 0.9, "validation": 0.05, "test": 0.05}


class GroupSplit:
    """Gives each record its split, or rejects one that would join two sides. Remembers every key."""

    name = "split"

    def __init__(
        self,
        *,
        shares: Mapping[Split, float] = SHARES,
        group_by: Sequence[str] = GROUP_BY,
        seed: int = 0,
        ledger: Mapping[str, Split] | None = None,
    ):
        """`ledger` maps keys to the side that an earlier split gave them.

        Raises:
            DataError: for shares that do not sum to 1, or an unknown split.
        """
        if set(shares) - set(SPLITS) or abs(sum(shares.values()) - 1) > 1e-6 or min(shares.values()) < 0:
            raise DataError(f"split: shares {dict(shares)} must be of {', '.join(SPLITS)} and sum to 1.")
        self.shares, self.group_by, self.seed = dict(shares), tuple(group_by), seed
        self._parents: dict[str, str] = {}
        self._sides: dict[str, Split] = {}
        self._old = dict(ledger or {})

    def prepare(self, records: Iterable[Record]) -> None:
        """Joins keys into groups and settles every group's side."""
        for key in self._old:
            self._parents.setdefault(key, key)
            self._sides[key] = self._old[key]
        for record in records:
            keys = self.keys_of(record)
            roots = {self._root(key) for key in keys}
            if len({self._sides[root] for root in roots if root in self._sides}) > 1:
                continue
            first, *others = sorted(roots, key=self._rank)
            side = next((self._sides[root] for root in roots if root in self._sides), None)
            for root in others:
                self._parents[root] = first
            if side is not None:
                self._sides[first] = side

    def judge(self, record: Record) -> Verdict:
        """Keeps a record whose keys are all on one side; `side_of` says which."""
        sides = {self._side(self._root(key)) for key in self.keys_of(record)}
        return KEPT if len(sides) == 1 else rejected("joins groups that stand on different sides", sorted(sides))

    def side_of(self, record: Record) -> Split:
        """The split of a kept record."""
        return self._side(self._root(self.keys_of(record)[0]))

    def ledger(self) -> dict[str, Split]:
        """Every key with its side: what the next split of a grown set must be given."""
        return {key: self._side(self._root(key)) for key in sorted(self._parents)}

    def keys_of(self, record: Record) -> list[str]:
        """The keys of a record, coarse to fine; its own id where it has none."""
        keys: list[str] = []
        for kind in self.group_by:
            if kind == "clip":
                keys += [f"clip:{path}" for path in record.audio]
                keys += [f"group:{group}" for group in record.provenance.get("groups", ())]
                continue
            for place in (record.meta, record.provenance):
                value = place.get(kind, place.get(f"{kind}s", place.get(f"{kind}_id")))
                values = value if isinstance(value, (list, tuple)) else () if value is None else (value,)
                keys += [f"{kind}:{item}" for item in values]
        return list(dict.fromkeys(keys)) or [f"record:{record.id}"]

    def _root(self, key: str) -> str:
        """The name of a key's group; paths are shortened on the way."""
        path = []
        while (parent := self._parents.setdefault(key, key)) != key:
            path.append(key)
            key = parent
        for step in path:
            self._parents[step] = key
        return key

    def _side(self, root: str) -> Split:
        if root not in self._sides:
            digest = hashlib.sha256(f"{self.seed}:{root}".encode()).digest()
            place = int.from_bytes(digest[:8]) / 2**64
            side = next(reversed(self.shares))
            for name, share in self.shares.items():
                if place < share:
                    side = name
                    break
                place -= share
            self._sides[root] = side
        return self._sides[root]

    def _rank(self, key: str) -> tuple[int, str]:
        """Coarse keys name a group: a speaker's group keeps its name whatever clips join it."""
        kind = key.partition(":")[0]
        kinds = [*(kind for kind in self.group_by if kind != "clip"), "group", "clip", "record"]
        return (kinds.index(kind) if kind in kinds else len(kinds), key)


def save_ledger(path: Path, ledger: Mapping[str, Split], seed: int) -> None:
    """Writes a ledger with the seed that it was made with, atomically."""
    with atomic_text(path) as out:
        out.write(
            json.dumps({"seed": seed, "sides": dict(sorted(ledger.items()))}, ensure_ascii=False, indent=0) + "\n"
        )


def load_ledger(path: Path) -> dict[str, Split]:
    """Reads what `save_ledger` wrote.

    Raises:
        DataError: if the file is no ledger.
    """
    try:
        sides = json.loads(path.read_text(encoding="utf-8"))["sides"]
        if not all(side in SPLITS for side in sides.values()):
            raise ValueError("a side that is no split")
        return sides
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: is no ledger of a split ({error!r}). Name the one that `lalm data split` wrote."
        ) from None
