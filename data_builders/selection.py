"""Which clips a set stores, from the clips of the sources: sizes, shares, variants of training clips, scene plans.

Nothing is read or written here; a plan is a list of StoredClip and StoredScene that `writing.py` carries out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from data_builders.clips import Clip, Split, seeded
from data_builders.effects import NO_EFFECTS, EffectShares, draw_effects
from data_builders.scenes import ScenePlan, plan_scene, scene_label
from data_builders.sources.asterisk import normalised
from data_builders.variants import draw_variant

SHORTEST_SPEECH_SECONDS = 0.3
LONGEST_CLIP_SECONDS = 4.0
"""Sounds and notes are cut there, with a fade."""


@dataclass(frozen=True)
class Size:
    """How much of everything a set takes. Counts are of clips a split, or of records a task."""

    longest_speech_seconds: float
    prompts: dict[Split, int]
    closed_variants: int
    sounds_per_label: dict[Split, int]
    instruments_per_label: dict[Split, int]
    scenes: dict[Split, int]
    records: dict[Split, dict[str, int]] = field(default_factory=dict)
    effects: EffectShares = NO_EFFECTS
    told: dict[Split, int] = field(default_factory=dict)
    longest_told_seconds: float = 30.0


@dataclass(frozen=True)
class StoredClip:
    """One clip file to be written: a source clip, or a variant of it."""

    id: str
    split: Split
    clip: Clip
    variant: dict[str, float] | None
    telephone: bool
    """Cut at the bandwidth of the telephone prompts."""


@dataclass(frozen=True)
class StoredScene:
    """One scene file to be written."""

    id: str
    split: Split
    plan: ScenePlan
    telephone: bool


def select(
    clips: Sequence[Clip], splits: dict[str, Split], size: Size, seed: int
) -> tuple[list[StoredClip], list[StoredScene]]:
    """The plan of a set: what is stored in every split, deterministic by seed."""
    clips = sorted(clips, key=lambda clip: clip.id)
    stored: list[StoredClip] = []
    for split in ("train", "validation", "test"):
        here = [clip for clip in clips if splits[clip.group] == split]
        chosen = _prompts(here, size, split, seed)
        chosen += [clip for clip in here if clip.facts.get("alone")]
        stored += [_stored(clip, split, seed) for clip in chosen]
        if split == "train":
            alone = [clip for clip in here if clip.facts.get("alone")]
            stored += [
                _stored(clip, split, seed, number) for clip in alone for number in range(1, size.closed_variants + 1)
            ]
        stored += _labelled(here, "sound", size.sounds_per_label[split], split, seed, testable(clips, splits, "sound"))
        stored += _labelled(
            here, "instrument", size.instruments_per_label[split], split, seed, testable(clips, splits, "instrument")
        )
        stored += _told(here, stored, size, split, seed)
    scenes = [scene for split in size.scenes for scene in _scenes(clips, splits, size, split, seed)]
    return stored, scenes


def testable(clips: Sequence[Clip], splits: dict[str, Split], kind: str) -> tuple[str, ...]:
    """The labels of a kind that have clips in training and in the test, sorted: the closed set that is asked for."""
    seen: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        if clip.kind == kind and clip.label:
            seen[clip.label].add(splits[clip.group])
    return tuple(sorted(label for label, where in seen.items() if {"train", "test"} <= where))


def event_bank(clips: Sequence[Clip], splits: dict[str, Split], split: Split) -> dict[str, list[Clip]]:
    """The clips of one split that may be events of scenes, by label."""
    bank: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        too_short = clip.kind == "speech" and (clip.facts.get("alone") or not 0.8 <= clip.seconds <= 5)
        mixed = clip.facts.get("whole") or not scene_label(clip)
        if splits[clip.group] == split and not too_short and not mixed:
            bank[scene_label(clip)].append(clip)
    return dict(bank)


def _prompts(clips: list[Clip], size: Size, split: Split, seed: int) -> list[Clip]:
    """Whole groups, so that every language says the same; prompts with a digit first, single words last."""
    groups: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        within = SHORTEST_SPEECH_SECONDS <= clip.seconds <= size.longest_speech_seconds
        if clip.kind == "speech" and not clip.facts.get("alone") and within:
            groups[clip.group].append(clip)

    def rank(name: str) -> tuple[int, float]:
        members = groups[name]
        words = max(len(normalised(clip.text or "").split()) for clip in members)
        first = 0 if any("digit" in clip.facts for clip in members) else 1 if words >= 3 else 2
        return first, seeded(seed, "prompt", split, name).random()

    chosen: list[Clip] = []
    for name in sorted(groups, key=rank):
        if len(chosen) >= size.prompts[split]:
            break
        chosen += groups[name]
    return chosen


def _labelled(
    clips: list[Clip], kind: str, count: int, split: Split, seed: int, labels: tuple[str, ...]
) -> list[StoredClip]:
    """`count` clips of every label; training fills up with variants, the other splits take what there is."""
    stored = []
    for label in labels:
        members = [clip for clip in clips if clip.kind == kind and clip.label == label]
        seeded(seed, "labelled", split, label).shuffle(members)
        for number in range(count if split == "train" else min(count, len(members))):
            if members:
                stored.append(_stored(members[number % len(members)], split, seed, number // len(members)))
    return stored


def _told(clips: list[Clip], stored: list[StoredClip], size: Size, split: Split, seed: int) -> list[StoredClip]:
    """Whole recordings that a corpus tells something of, beyond those that are stored for another reason."""
    have = {entry.id for entry in stored}
    short = [clip for clip in clips if clip.facts.get("told") and clip.seconds <= size.longest_told_seconds]
    rest = [clip for clip in short if clip.id not in have]
    seeded(seed, "told", split).shuffle(rest)
    return [_stored(clip, split, seed) for clip in rest[: size.told.get(split, 0)]]


def _stored(clip: Clip, split: Split, seed: int, variant: int = 0) -> StoredClip:
    name = f"{clip.id}-v{variant}" if variant else clip.id
    rng = seeded(seed, "stored", name)
    settings = draw_variant(rng, speech=clip.kind == "speech") if variant else None
    telephone = clip.kind != "speech" and rng.random() < 0.5 and not clip.facts.get("told")
    return StoredClip(name, split, clip, settings, telephone=telephone)


def _scenes(clips: Sequence[Clip], splits: dict[str, Split], size: Size, split: Split, seed: int) -> list[StoredScene]:
    """Scenes of one split. Speech (CC-BY-SA) and renders (GPL) never meet in one file: their licences forbid it."""
    bank = event_bank(clips, splits, split)
    kinds = {label: members[0].kind for label, members in bank.items()}
    scenes = []
    for number in range(size.scenes[split]):
        name = f"scene-{split}-{number:05d}"
        rng = seeded(seed, name)
        left_out = rng.choice(("speech", "instrument"))
        here = {label: members for label, members in bank.items() if kinds[label] != left_out}
        if len(here) < 4:
            continue
        if left_out == "instrument" and "speech" in here and rng.random() < 0.5:
            # Speech is one label among many; without this it would be in one scene of ten.
            others = rng.sample(sorted(set(here) - {"speech"}), 3)
            plan = plan_scene({label: here[label] for label in ("speech", *others)}, rng)
        else:
            plan = plan_scene(here, rng)
        telephone = rng.random() < 0.5
        if size.effects != NO_EFFECTS:
            effects = draw_effects(size.effects, len(plan.clips), seeded(seed, "effects", name))
            plan = replace(plan, effects=effects)
        scenes.append(StoredScene(name, split, plan, telephone))
    return scenes
