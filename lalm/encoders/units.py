"""Units: the nearest of some k-means centres in place of a state, as speech becomes tokens in SpeechGPT.

Sources: HuBERT's k-means (arXiv 2106.07447), generative spoken language modelling (2102.01192), SpeechGPT (2305.11000).
Centres are read from a `.safetensors` or `.npz` file with one array `[K, E]`. The files that fairseq released are
pickles, which are not read; the error says how to convert one.
"""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn

from lalm.errors import ModelError
from lalm.files import replacing
from lalm.recipe.encoders import EncoderSection, UnitsSection, units_of
from lalm.resources import file_fingerprint

CENTRES = "centres"
"""The array's name in a file that `save_centres` writes; a file with one array may call it anything."""
SUFFIXES = (".safetensors", ".npz")
ROWS_AT_ONCE = 8192
"""States whose distances to all centres are held at a time: 33 MB with a thousand centres."""


class UnitQuantiser(nn.Module):
    """States `[..., E]` -> the number of the nearest centre, `[..., 1]` of `unit_dtype`; the lowest number wins a tie.

    Distances are computed in float32 whatever the encoder computes in, and the centres stay float32 when the model is
    cast: rounded ones would give other units.
    """

    unit_dtype = torch.int32
    centres: Tensor

    def __init__(self, centres: Tensor, *, drops_repeats: bool):
        super().__init__()
        self.register_buffer("centres", centres)
        self.drops_repeats = drops_repeats

    @property
    def num_units(self) -> int:
        """`K`."""
        return self.centres.shape[0]

    @torch.no_grad()
    def forward(self, states: Tensor) -> Tensor:
        lengths = self.centres.square().sum(dim=1)
        rows = states.reshape(-1, states.shape[-1]).split(ROWS_AT_ONCE)
        # |x - c|^2 without |x|^2, which is the same for every centre.
        nearest = [(lengths - 2 * part.float() @ self.centres.T).argmin(dim=1) for part in rows]
        return torch.cat(nearest).to(self.unit_dtype).view(*states.shape[:-1], 1)

    def _apply(self, fn: Any, recurse: bool = True) -> UnitQuantiser:
        exact = self.centres
        super()._apply(fn, recurse)
        if self.centres.dtype != exact.dtype:
            self.centres = exact.to(self.centres.device)
        return self


def first_of_runs(units: Tensor) -> Tensor:
    """Of the units `[T, 1]` of a clip those that differ from the one before, `[T]` of booleans."""
    is_first = torch.ones(len(units), dtype=torch.bool, device=units.device)
    is_first[1:] = (units[1:] != units[:-1]).any(dim=1)
    return is_first


def empty_quantiser(section: EncoderSection, width: int) -> UnitQuantiser | None:
    """A quantiser with random centres; None where the recipe wants states."""
    units = units_of(section)
    if units is None:
        return None
    return UnitQuantiser(torch.randn(units.count, width), drops_repeats=units.drop_repeats)


def load_centres(units: UnitsSection, width: int) -> Tensor:
    """The centres `[count, width]` that a recipe names.

    Raises:
        ModelError: if no file is named, it cannot be read, is a pickle, or holds centres of another number or width.
    """
    if units.centres is None:
        raise ModelError(
            "encoders.units.centres: no file is given, so nothing says which state is which unit. Fit centres on the "
            "recipe's own clips with: lalm units fit RECIPE encoders.0.units.centres=FILE.safetensors"
        )
    centres = read_centres(Path(units.centres))
    if centres.shape != (units.count, width):
        raise ModelError(
            f"encoders.units.centres: {units.centres} holds {centres.shape[0]} centres of width {centres.shape[1]}; "
            f"encoders.units.count is {units.count} and the encoder's states are {width} wide."
        )
    return torch.from_numpy(centres)


def read_centres(path: Path) -> np.ndarray:
    """The one array `[K, E]` of a file, float32.

    Raises:
        ModelError: if there is no such file, it is neither kind, is damaged, or its array is no finite matrix.
    """
    if not path.is_file():
        raise ModelError(f"encoders.units.centres: {path}: no such file. Fit one with: lalm units fit RECIPE")
    if path.suffix not in SUFFIXES:
        raise ModelError(
            f"encoders.units.centres: {path}: is no {' or '.join(SUFFIXES)}. The k-means files of fairseq (km.bin, "
            "..._km1000.bin) are pickles, which run code when they are opened and are not read. Convert one that you "
            f'trust, where joblib and scikit-learn are: python -c "import joblib, numpy; numpy.savez('
            f"'{path.with_suffix('.npz').name}', {CENTRES}=joblib.load('{path.name}').cluster_centers_)\""
        )
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        else:
            arrays = load_file(path)
    except (OSError, ValueError, SafetensorError, zipfile.BadZipFile) as error:
        raise ModelError(
            f"encoders.units.centres: {path}: cannot be read ({error}). Fit or convert it again."
        ) from None
    found = {name: list(array.shape) for name, array in arrays.items()}
    if len(arrays) > 1 and CENTRES in arrays:
        arrays = {CENTRES: arrays[CENTRES]}
    if len(arrays) != 1 or next(iter(arrays.values())).ndim != 2:
        raise ModelError(f"encoders.units.centres: {path}: holds {found}; one array [centres, width] is wanted.")
    centres = np.ascontiguousarray(next(iter(arrays.values())), np.float32)
    if not np.isfinite(centres).all():
        raise ModelError(f"encoders.units.centres: {path}: holds values that are no numbers. Fit or convert it again.")
    return centres


def save_centres(path: Path, centres: np.ndarray) -> None:
    """Writes centres `[K, E]` atomically.

    Raises:
        ModelError: if the name does not end in `.safetensors`.
    """
    if path.suffix != SUFFIXES[0]:
        raise ModelError(f"{path}: centres are written as {SUFFIXES[0]}; give a name that ends so.")
    with replacing(path) as temporary:
        save_file({CENTRES: np.ascontiguousarray(centres, np.float32)}, temporary)


def units_fingerprint(units: UnitsSection) -> str:
    """A digest of the centres and of what is done with them; where their file lies does not count."""
    weights = "random" if units.centres is None else file_fingerprint(Path(units.centres))
    text = f"{weights}:{units.model_dump_json(exclude={'centres'})}"
    return hashlib.sha256(text.encode()).hexdigest()
