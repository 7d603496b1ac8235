"""Projectors on the meta device with real lengths: the operations and the sizes that they have with numbers."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from lalm.model.known_lengths import KnownLengths
from lalm.model.memory import LiveBytes
from lalm.model.plan import build_without_weights
from lalm.projectors.base import Projector
from lalm.recipe.load import load_recipe
from lalm.resources import list_shipped

OF_PACKAGES = ("own_data", "quickstart", "quickstart_full")
"""Their bases may not be in the cache; their projector is that of other recipes."""
RECIPES = [name for file in list_shipped("recipes") if (name := file.removesuffix(".yaml")) not in OF_PACKAGES]
STEPS = (40, 23)
"""Encoder steps of two clips, of which the second is padded."""


def run(projector: Projector, device: str, widths: tuple[int, int]) -> tuple[torch.Size, int, int]:
    """Size of the result, operations, bytes left for backward. `widths`: the encoders', the text's."""
    layers = projector.num_layer_inputs
    size = (2, layers, max(STEPS), widths[0] // layers) if layers > 1 else (2, max(STEPS), widths[0])
    states, lengths = torch.zeros(size, device=device), torch.tensor(STEPS)
    inputs = [states, lengths]
    if projector.reads_question:
        inputs += [torch.zeros(2, 5, widths[1], device=device), torch.tensor([5, 3])]
    # Of attention's kernels the meta device has only the plain one.
    with sdpa_kernel(SDPBackend.MATH), LiveBytes() as count, KnownLengths():
        count.ignore(projector.parameters())
        positions, num_positions = projector(*inputs)
        kept = count.now
        positions.sum().backward()
    assert positions.device.type == device
    assert num_positions.device.type == "cpu"
    return positions.shape, count.flops, kept


@pytest.mark.parametrize("name", RECIPES)
def test_a_projector_without_numbers_does_what_it_does_with_them(name):
    model = build_without_weights(load_recipe(name, (), tiny=True))
    projector = model.multi_modal_projector.float().requires_grad_(True)
    if model.audio_tower.num_units:
        pytest.skip("units are looked up: there is nothing to count")
    widths = model.audio_tower.width, model.get_input_embeddings().weight.shape[1]
    found = run(projector, "meta", widths)
    real = projector.to_empty(device="cpu")
    for parameter in real.parameters():
        parameter.data.zero_()
    size, flops, kept = run(real, "cpu", widths)
    assert found[0] == size
    assert found[1] == flops
    assert found[2] == pytest.approx(kept, rel=0.05)


def test_what_holds_is_computed_and_the_rest_is_not():
    with KnownLengths():
        states = torch.empty(2, 5, 3, device="meta")
        is_real = torch.arange(5, device=states.device) < torch.tensor([4, 2])[:, None]
        assert is_real.device.type == "cpu"
        assert states[is_real].shape == (6, 3)
        assert states.masked_select(is_real[..., None]).shape == (18,)
        assert (states * is_real[..., None]).device.type == "meta"
        assert torch.zeros(3, device="meta").device.type == "meta"
        assert int(torch.tensor([4, 2]).to("meta").max()) == 4
        filled = torch.zeros(2, 5, 3, device="meta")
        filled[is_real] = torch.ones(6, 3, device="meta")
    with pytest.raises(RuntimeError):
        _ = states < torch.tensor([4, 2, 3])
