"""Who is held out: groups of clips go to train, validation or test before anything else is made from them.

Where a corpus has splits of its own (`facts["split"]`), its clips keep them. Else three rules, by what the clips are:
- a prompt (running speech): the group is the prompt in every language, so no sentence of the test was read in training;
- a digit, letter or word said alone, of a closed set: one recording is held out of those that sound alike (the same
  word by another voice, or the same digit within a prompt, stays in training);
- a sound or an instrument: per label, a share of its groups; a label with one group stays in training, untested.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from data_builders.clips import SPLITS, Clip, Split, seeded

TEST_SHARE_PROMPTS = 0.18
VALIDATION_SHARE_PROMPTS = 0.05
TEST_SHARE_LABELS = 1 / 3
TEST_CLOSED = {"digit": 10, "letter": 36, "word": 34}
"""How many recordings of each closed set are held out, at most one of those that sound alike."""


def assign_splits(clips: Sequence[Clip], seed: int) -> dict[str, Split]:
    """The split of every group. The same seed and clips give the same answer, in whatever order the clips come."""
    clips = sorted(clips, key=lambda clip: clip.id)
    ranked = sorted((clip for clip in clips if clip.facts.get("split") in SPLITS), key=_official_rank)
    official = {clip.group: clip.facts["split"] for clip in ranked}
    clips = [clip for clip in clips if clip.group not in official]
    splits: dict[str, Split] = dict(official)
    splits.update(_split_labels([clip for clip in clips if clip.kind != "speech"], seed))
    splits.update(_split_closed([clip for clip in clips if clip.facts.get("alone")], seed))
    splits.update(
        _split_prompts([clip for clip in clips if clip.kind == "speech" and not clip.facts.get("alone")], seed)
    )
    return splits


def _official_rank(clip: Clip) -> int:
    """A group that a corpus put into several splits goes where it does least harm: to the test before validation."""
    return SPLITS.index(clip.facts["split"])


def leaks(groups_by_split: dict[str, Iterable[str]]) -> list[str]:
    """The groups that occur in more than one split; an empty list is what a set must show."""
    seen: dict[str, str] = {}
    found = []
    for split, groups in groups_by_split.items():
        for group in groups:
            if seen.setdefault(group, split) != split:
                found.append(group)
    return sorted(set(found))


def _split_labels(clips: list[Clip], seed: int) -> dict[str, Split]:
    groups: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        groups[f"{clip.kind} {clip.label}"].add(clip.group)
    splits: dict[str, Split] = {}
    for label, members in groups.items():
        ordered = sorted(members)
        seeded(seed, "split", label).shuffle(ordered)
        num_test = 0 if len(ordered) < 2 else max(1, round(len(ordered) * TEST_SHARE_LABELS))
        num_validation = 1 if len(ordered) >= 8 else 0
        for place, group in enumerate(ordered):
            splits[group] = (
                "test" if place < num_test else "validation" if place < num_test + num_validation else "train"
            )
    return splits


def _split_closed(clips: list[Clip], seed: int) -> dict[str, Split]:
    splits: dict[str, Split] = {clip.group: "train" for clip in clips}
    alike: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        alike[clip.facts["sounds_like"]].append(clip)
    for fact, quota in TEST_CLOSED.items():
        names = sorted(name for name, members in alike.items() if fact in members[0].facts and len(members) >= 2)
        seeded(seed, "split", fact).shuffle(names)
        held: list[Clip] = []
        for name in names * 2:
            left = [clip for clip in alike[name] if clip not in held]
            if len(held) < quota and len(left) >= 2:
                held.append(seeded(seed, "held out", name).choice(left))
        splits.update({clip.group: "test" for clip in held})
    return splits


def _split_prompts(clips: list[Clip], seed: int) -> dict[str, Split]:
    """Shares of the groups, with at least one group of each digit held out where two others remain in training."""
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        groups[clip.group].append(clip)
    names = sorted(groups)
    seeded(seed, "split", "prompts").shuffle(names)
    num_test, num_validation = (round(len(names) * share) for share in (TEST_SHARE_PROMPTS, VALIDATION_SHARE_PROMPTS))
    test = names[:num_test]
    digits: dict[str, list[str]] = defaultdict(list)
    for name in names:
        for digit in {clip.facts["digit"] for clip in groups[name] if "digit" in clip.facts}:
            digits[digit].append(name)
    for digit in sorted(digits):
        held = [name for name in digits[digit] if name in test]
        if len(digits[digit]) >= 2 and not held:
            test.append(digits[digit][0])
        elif len(held) * 2 > len(digits[digit]):
            for name in held[: len(held) - len(digits[digit]) // 2]:
                test.remove(name)
    rest = [name for name in names if name not in test]
    return {
        **dict.fromkeys(test, "test"),
        **dict.fromkeys(rest[:num_validation], "validation"),
        **dict.fromkeys(rest[num_validation:], "train"),
    }
