"""Floating-point operations, from shapes: a multiplication with its addition counts as two, as `torch` counts them.

Norms, softmax, activations and the optimizer are left out: they are no matrix products. Checked against
`torch.utils.flop_counter` in the tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lalm.bench.sizes import Sizes
from lalm.data.mixture import QUESTIONS_PER_CLIP
from lalm.data.packing import common_prefix_length, share_key

if TYPE_CHECKING:
    from lalm.data.examples import Example

MEL_BINS = 80
PATCH_NUMBERS = 16 * 16
BEATS_BASE = {
    "encoder_layers": 12, "encoder_embed_dim": 768, "encoder_ffn_embed_dim": 3072, "encoder_attention_heads": 12,
    "embed_dim": 512, "conv_pos": 128, "conv_pos_groups": 16,
}  # fmt: skip
"""What `lalm.encoders.beats` takes for sizes that are not given."""


@dataclass(frozen=True)
class Cost:
    """Forward and backward operations of one part."""

    forward: float = 0.0
    backward: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.forward + other.forward, self.backward + other.backward)

    @property
    def total(self) -> float:
        return self.forward + self.backward


def whisper_flops(sizes: dict[str, int], num_frames: int, mel_bins: int = MEL_BINS) -> float:
    """Forward of Whisper's encoder over `num_frames` mel frames."""
    width, steps = sizes["d_model"], -(-num_frames // 2)
    convolutions = 2 * 3 * (mel_bins * width * num_frames + width * width * steps)
    layer = steps * (8 * width**2 + 4 * width * sizes["encoder_ffn_dim"]) + 4 * steps**2 * width
    return convolutions + sizes["encoder_layers"] * layer


def beats_flops(sizes: dict[str, int], num_patches: int) -> float:
    """Forward of BEATs over `num_patches` patches (8 for 16 frames), with gated position biases."""
    sizes = {**BEATS_BASE, **sizes}
    width, embed, ffn = sizes["encoder_embed_dim"], sizes["embed_dim"], sizes["encoder_ffn_embed_dim"]
    patches = 2 * num_patches * PATCH_NUMBERS * embed
    projected = 2 * num_patches * embed * width if embed != width else 0
    # An even kernel makes one step too many, which is dropped.
    positions = 2 * (num_patches + 1) * sizes["conv_pos"] * width * (width // sizes["conv_pos_groups"])
    gate = 16 * num_patches * width
    layer = num_patches * (8 * width**2 + 4 * width * ffn) + 4 * num_patches**2 * width + gate
    return patches + projected + positions + sizes["encoder_layers"] * layer


def qformer_cost(
    sizes: dict[str, int], *, num_windows: int, window_steps: int, queries: int, encoder_width: int, decoder_width: int
) -> Cost:
    """The window-level Q-Former with its last linear layer. It trains: gradients go to weights and to inputs."""
    hidden, inner = sizes["hidden_size"], sizes["intermediate_size"]
    self_attention = 8 * queries * hidden**2 + 4 * queries**2 * hidden
    cross_attention = 4 * queries * hidden**2 + 4 * window_steps * encoder_width * hidden
    cross_attention += 4 * queries * window_steps * hidden
    feed_forward = 4 * queries * hidden * inner
    layers = sizes["num_layers"] * (self_attention + cross_attention + feed_forward)
    forward = num_windows * (layers + 2 * queries * hidden * decoder_width)
    return Cost(forward, 2 * forward)


def linear_cost(*, num_positions: int, encoder_width: int, decoder_width: int) -> Cost:
    """One linear layer on frozen states: gradients go to its weights alone."""
    forward = 2.0 * num_positions * encoder_width * decoder_width
    return Cost(forward, forward)


def decoder_cost(sizes: dict[str, int], *, num_tokens: int, num_pairs: float, lora_rank: int) -> Cost:
    """A frozen LLaMA's layers with LoRA on q and v: gradients go through all of it, and to the adapter's weights.

    `num_pairs`: pairs of positions of which one attends to the other.
    """
    width, heads = sizes["hidden_size"], sizes["num_attention_heads"]
    head = sizes.get("head_dim", width // heads)
    queries, keys = heads * head, sizes["num_key_value_heads"] * head
    frozen = 2 * num_tokens * width * (2 * queries + 2 * keys + 3 * sizes["intermediate_size"])
    adapter = 2 * num_tokens * lora_rank * (2 * width + queries + keys)
    attention = 4 * num_pairs * queries
    layers = sizes["num_hidden_layers"]
    return Cost(layers * (frozen + adapter + attention), layers * (frozen + 2 * adapter + 2 * attention))


def head_cost(sizes: dict[str, int], num_rows: int) -> Cost:
    """A frozen vocabulary matrix at `num_rows` positions."""
    forward = 2.0 * num_rows * sizes["hidden_size"] * sizes["vocab_size"]
    return Cost(forward, forward)


def useful_decoder_work(examples: Sequence[Example]) -> tuple[int, float]:
    """(positions, attended pairs) of one epoch: a prefix that several questions share is computed once.

    Questions about a clip share in groups of `QUESTIONS_PER_CLIP`, as a stage draws them.
    """
    groups: dict[tuple | int, list[Example]] = {}
    for index, example in enumerate(examples):
        key = share_key(example)
        groups.setdefault(index if key is None else key, []).append(example)
    tokens, pairs = 0, 0.0
    for group in groups.values():
        for start in range(0, len(group), QUESTIONS_PER_CLIP):
            unit = group[start : start + QUESTIONS_PER_CLIP]
            prefix = common_prefix_length(unit) if len(unit) > 1 else 0
            tokens += prefix
            pairs += prefix * (prefix + 1) / 2
            for example in unit:
                own = len(example) - prefix
                tokens += own
                pairs += own * prefix + own * (own + 1) / 2
    return tokens, pairs


def encoder_flops(sizes: Sizes, seconds: float, *, second_encoder: bool) -> float:
    """All encoders over one clip at its real length."""
    total = whisper_flops(sizes.whisper, round(seconds * 100))
    if second_encoder:
        total += beats_flops(sizes.beats, 8 * int(((seconds - 0.025) * 100 + 1) // 16))
    return total
