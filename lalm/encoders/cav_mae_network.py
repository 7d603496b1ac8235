"""The audio branch of a fine-tuned CAV-MAE in plain PyTorch: a vision transformer over 16 x 16 patches of a filterbank.

Source: "Contrastive Audio-Visual Masked Autoencoder" (arXiv 2210.07839), as LTU (arXiv 2305.10790) and GAMA (arXiv
2406.11768) build it. A block of the published network has a pair of norms for audio, one for images and one for both,
of which sound passes through one: the joint pair in the audio blocks, the audio pair in the joint blocks. The other two
are not built.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

NUM_MEL_BINS = 128
PATCH = 16
"""Mel bins, and frames, of one patch; patches do not overlap."""
ROWS = NUM_MEL_BINS // PATCH
"""Patches over frequency."""
NUM_JOINT_BLOCKS = 1
"""The last blocks, which the published network shares between sound and image."""
INIT_STD = 0.02


@dataclass(frozen=True)
class CavMaeSizes:
    """`num_hidden_layers` counts the joint block; `max_length` is the frames of a whole chunk."""

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_length: int = 1024

    @property
    def columns(self) -> int:
        """Patches over the time of a whole chunk."""
        return self.max_length // PATCH


class CavMaeNetwork(nn.Module):
    """Normalised filterbank `[N, 128, F]` -> states `[N, P, E]`, `P = 8 * (F // 16)`: frequency first, then time.

    Args:
        tapped: layers before the last that are read too; each gets a norm of its own, as in GAMA.
    """

    def __init__(self, sizes: CavMaeSizes, tapped: Sequence[int] = ()):
        super().__init__()
        width = sizes.hidden_size
        self.patch_embedding = nn.Conv2d(1, width, PATCH, stride=PATCH)
        self.positions = nn.Parameter(INIT_STD * torch.randn(1, ROWS * sizes.columns, width))
        self.modality = nn.Parameter(INIT_STD * torch.randn(1, 1, width))
        num_audio_blocks = sizes.num_hidden_layers - NUM_JOINT_BLOCKS
        self.audio_blocks = nn.ModuleList(_Block(sizes) for _ in range(num_audio_blocks))
        self.joint_blocks = nn.ModuleList(_Block(sizes) for _ in range(NUM_JOINT_BLOCKS))
        self.norm = nn.LayerNorm(width)
        self.tap_norms = nn.ModuleDict({str(layer): nn.LayerNorm(width) for layer in tapped})

    def forward(self, filterbank: Tensor) -> list[Tensor]:
        """The output of every block, `[N, P, E]` each; a clip shorter than a chunk takes the first positions."""
        patches = self.patch_embedding(filterbank[:, None]).permute(0, 2, 3, 1)  # [N, rows, columns, E]
        positions = self.positions.unflatten(1, (ROWS, -1))[:, :, : patches.shape[2]]
        hidden = (patches + positions).flatten(1, 2) + self.modality
        outputs = []
        for block in (*self.audio_blocks, *self.joint_blocks):
            hidden = block(hidden)
            outputs.append(hidden)
        for layer, norm in self.tap_norms.items():
            outputs[int(layer)] = norm(outputs[int(layer)])
        return [*outputs[:-1], self.norm(outputs[-1])]


class _Block(nn.Module):
    def __init__(self, sizes: CavMaeSizes):
        super().__init__()
        width = sizes.hidden_size
        self.num_heads = sizes.num_attention_heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, sizes.intermediate_size)
        self.fc2 = nn.Linear(sizes.intermediate_size, width)

    def forward(self, hidden: Tensor) -> Tensor:
        split = self.qkv(self.norm1(hidden)).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        heard = functional.scaled_dot_product_attention(*split.unbind(0))  # [N, heads, P, E / heads]
        hidden = hidden + self.proj(heard.transpose(1, 2).flatten(2))
        return hidden + self.fc2(functional.gelu(self.fc1(self.norm2(hidden))))
