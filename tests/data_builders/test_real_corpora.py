"""The fetched recordings themselves: counts of this version, and what the sources make of them."""

from collections import Counter

import pytest

from data_builders.debs import _opened
from data_builders.recipe_reading import load_data_recipe
from data_builders.selection import select
from data_builders.sources import SOURCES, source
from data_builders.splits import assign_splits
from data_builders.writing import read_wave
from lalm.resources import cache_folder

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def corpora():
    packages = [package for name in SOURCES for package in source(name).PACKAGES]
    fetched = {package.name: _opened(cache_folder() / "corpora" / package.name, package) for package in packages}
    missing = [name for name, package in fetched.items() if package is None]
    if missing:
        pytest.skip(f"not in the cache: {', '.join(missing)}; run `lalm data fetch quickstart`")
    return {name: source(name).read_clips(fetched, 0) for name in SOURCES}


def test_the_prompts_are_paired_with_their_texts(corpora):
    clips, _ = corpora["asterisk"]
    spoken = Counter(clip.language for clip in clips)
    assert all(450 <= count <= 600 for count in spoken.values())
    assert len(spoken) == 5
    keys = [{clip.facts["key"] for clip in clips if clip.language == language} for language in spoken]
    assert len(set.intersection(*keys)) > 400


def test_the_samples_are_all_there_and_all_decode(corpora):
    clips, skipped = corpora["sonic-pi"]
    assert not skipped
    assert len(clips) == 130
    assert all("freesound" in clip.provenance for clip in clips[:30])
    for clip in clips[::10]:
        assert 0.01 < len(read_wave(clip)) / 16_000 < 11


def test_every_instrument_renders(corpora):
    clips, skipped = corpora["soundfont"]
    assert not skipped
    for clip in clips[::24]:
        assert abs(read_wave(clip)).max() == pytest.approx(0.7, abs=0.02)


def test_the_quickstart_selection_is_balanced_and_whole(corpora):
    clips = [clip for found, _ in corpora.values() for clip in found]
    splits = assign_splits(clips, 0)
    stored, scenes = select(clips, splits, load_data_recipe("quickstart").size, 0)
    train = [item for item in stored if item.split == "train"]
    assert 1_500 <= len(train) <= 2_600
    digits = {item.clip.facts["digit"] for item in stored if item.split == "test" and "digit" in item.clip.facts}
    assert len(digits) == 10
    languages = Counter(
        item.clip.language
        for item in stored
        if item.split == "test" and item.clip.text and len(item.clip.text.split()) >= 3
    )
    assert min(languages.values()) >= 10
    for scene in scenes:
        kinds = {clip.kind for clip in scene.plan.clips}
        assert not {"speech", "instrument"} <= kinds
        assert {splits[clip.group] for clip in scene.plan.clips} == {scene.split}
