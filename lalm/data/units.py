"""Fits the k-means centres of a recipe's units on the states of its own training clips.

Source of the settings: HuBERT's clustering as fairseq ships it (`learn_kmeans.py`): mini-batches of 10,000 states, the
best of 20 k-means++ starts, until 100 mini-batches bring nothing more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from lalm.data.clips import ClipStore
from lalm.data.examples import clip_paths, load_records, open_clips
from lalm.encoders import load_encoder
from lalm.errors import AudioError, DataError, MissingPackageError, RecipeError
from lalm.processing.clips import features_of
from lalm.recipe.encoders import UnitsSection, units_of
from lalm.recipe.schema import Recipe

if TYPE_CHECKING:
    from lalm.encoders.base import AudioEncoder

MAX_STATES = 200_000
"""States that are clustered: 600 MB at a width of 768, and 200 for each of a thousand centres."""
BATCH_STATES, NUM_STARTS, MAX_PASSES, PATIENCE = 10_000, 20, 100, 100


@dataclass(frozen=True)
class FittedUnits:
    """`centres [K, E]` float32; `mean_distance`: of the clustered states from their centre, squared."""

    centres: np.ndarray
    num_clips: int
    num_states: int
    mean_distance: float


def fitted_section(recipe: Recipe) -> tuple[int, UnitsSection]:
    """The encoder that has units, by its place, and what the recipe says of them.

    Raises:
        RecipeError: if no encoder has units.
    """
    for index, section in enumerate(recipe.encoders):
        if (units := units_of(section)) is not None:
            return index, units
    raise RecipeError(
        f"recipe '{recipe.name}': no encoder has units. Give one `units: {{centres: FILE.safetensors, count: 1000}}`."
    )


def fit_units(
    recipe: Recipe,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    max_states: int = MAX_STATES,
    progress: bool = True,
) -> FittedUnits:
    """Encodes every training clip of the recipe and clusters its states, or a seeded sample of `max_states` of them.

    The same recipe, clips and machine give the same centres.

    Raises:
        RecipeError: if no encoder of the recipe has units.
        DataError: if too many clips are unusable, or there are fewer states than centres.
    """
    index, units = fitted_section(recipe)
    section = recipe.encoders[index].model_copy(update={"units": None})
    encoder = load_encoder(section, dtype).to(device)
    clips = open_clips(recipe, encoder.front_end.sample_rate_hz)
    paths = clip_paths(load_records(recipe)[0])
    clips.scan(paths)
    clips.check_bad_share(paths)
    paths = [path for path in paths if path not in clips.quarantine]
    total = sum(encoder.length_rule.count(info.num_samples) for path in paths if (info := clips.info(path)))
    share = min(1.0, max_states / max(total, 1))
    chosen = [*_chosen_states(encoder, clips, paths, share, recipe.seed, progress)]
    clips.check_bad_share(paths)
    states = np.concatenate(chosen) if chosen else np.zeros((0, encoder.width), np.float32)
    if len(states) < units.count:
        raise DataError(
            f"the recipe's training clips give {len(states)} states, too few for {units.count} centres. Add clips, or "
            "lower encoders.units.count."
        )
    centres, mean_distance = _cluster(states, units.count, recipe.seed)
    return FittedUnits(centres, len(chosen), len(states), mean_distance)


def _chosen_states(
    encoder: AudioEncoder, clips: ClipStore, paths: Sequence[str], share: float, seed: int, progress: bool
) -> Iterator[np.ndarray]:
    """Of each clip that can be read, `share` of its states `[n, E]`, at least one."""
    rng = np.random.default_rng(seed)
    device = next(encoder.parameters()).device
    columns = (TextColumn("encoding"), BarColumn(), TextColumn("{task.completed}/{task.total} clips"))
    with Progress(*columns, TimeRemainingColumn(), disable=not progress) as bar:
        for path in bar.track(paths):
            try:
                wave = clips.load(path)
            except AudioError as error:
                clips.quarantine_clip(path, str(error))
                continue
            audio = features_of([encoder.front_end], [wave], encoder.front_end.sample_rate_hz)
            with torch.inference_mode():
                output = encoder(audio["input_features"][0].to(device), audio["feature_lengths"][0].to(device))
            pieces = zip(output.states, output.num_steps.tolist(), strict=True)
            states = torch.cat([piece[:steps] for piece, steps in pieces]).float().cpu().numpy()
            if len(states):
                kept = rng.choice(len(states), max(1, round(share * len(states))), replace=False)
                yield states[np.sort(kept)]


def _cluster(states: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, float]:
    try:
        from sklearn.cluster import MiniBatchKMeans
    except ModuleNotFoundError:
        raise MissingPackageError("scikit-learn", "Fitting units", "train") from None
    found = MiniBatchKMeans(
        n_clusters=count,
        init="k-means++",
        n_init=NUM_STARTS,
        max_iter=MAX_PASSES,
        batch_size=BATCH_STATES,
        max_no_improvement=PATIENCE,
        tol=0.0,
        reassignment_ratio=0.0,
        random_state=seed,
    ).fit(states)
    return found.cluster_centers_.astype(np.float32), float(found.inertia_) / len(states)
