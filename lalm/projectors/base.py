"""What every projector is: encoder states in, vectors of the decoder's width out, real lengths beside both."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Projector(nn.Module):
    """Maps encoder states `[B, T, E]` to audio positions `[B, A, D]`.

    `num_positions[b]` equals the recipe section's `length_rule().count(num_steps[b])`. What stands behind
    `num_steps[b]` in `states` never changes a result; what stands behind `num_positions[b]` in the output is zero.

    Attributes:
        num_layer_inputs: layers of the encoder that `states` holds; above 1 they are `[B, layers, T, E]`, the last
            layer last.
        num_summaries: positions behind a clip's others that stand for all of it, and for no stretch of it.
        summary_is_learned: the last of them has weights of its own, so that it can point elsewhere than the mean of the
            others does.
        reads_question: whether `forward` also takes the question of each clip as embeddings of the decoder's table,
            `question [B, K, D]` and `question_lengths [B]`.
    """

    num_layer_inputs: int = 1
    num_summaries: int = 0
    summary_is_learned: bool = False
    reads_question: bool = False

    @property
    def output_layer(self) -> nn.Linear | nn.LayerNorm:
        """The layer whose output is handed to the decoder."""
        raise NotImplementedError

    @torch.no_grad()
    def match_scale(self, std: float) -> None:
        """Sets the start so that audio vectors are about as long as the decoder's text embeddings (`std` a number).

        A decoder's early layers add updates of the size of its embeddings. Vectors several times longer pass through
        them nearly unchanged, and are learned several times more slowly.
        """
        layer = self.output_layer
        if isinstance(layer, nn.LayerNorm):
            layer.weight.fill_(std)
        else:  # PyTorch's start turns inputs of unit variance into outputs of variance 1/3.
            layer.weight.mul_(std * 3**0.5)
            if layer.bias is not None:
                layer.bias.zero_()

    def forward(self, states: Tensor, num_steps: Tensor) -> tuple[Tensor, Tensor]:
        """`states [B, T, E]`, `num_steps [B]` -> (`positions [B, A, D]`, `num_positions [B]`)."""
        raise NotImplementedError


def masked_mean(windows: Tensor, is_real: Tensor) -> Tensor:
    """Mean of the real steps of each window: `[B, W, size, E]`, `[B, W, size]` -> `[B, W, E]`; 0 for none."""
    return windows.sum(dim=2) / is_real.sum(dim=2).clamp(min=1)[..., None].to(windows.dtype)


def step_mask(num_steps: Tensor, length: int) -> Tensor:
    """`[B]` lengths -> `[B, length]`, true at real steps."""
    return torch.arange(length, device=num_steps.device) < num_steps[:, None]


def into_windows(states: Tensor, num_steps: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Cuts each clip into windows of `size` steps; the last is filled with zeros.

    `states [B, T, E]` -> (`windows [B, W, size, E]`, `is_real [B, W, size]`) with `W = ceil(T / size)`.
    """
    batch, length, width = states.shape
    num_windows = max(1, -(-length // size))
    is_real = step_mask(num_steps, num_windows * size)
    states = nn.functional.pad(states, (0, 0, 0, num_windows * size - length))
    states = states.masked_fill(~is_real[..., None], 0)
    return states.view(batch, num_windows, size, width), is_real.view(batch, num_windows, size)


def pack_windows(states: Tensor, num_steps: Tensor, size: int) -> Tensor:
    """The windows of `into_windows` that hold a step, of all clips one behind another: `[N, size, E]`.

    Clips of a batch differ in length, mostly by several times: what is done to these windows is not done to padding.
    """
    num_windows = torch.div(num_steps + size - 1, size, rounding_mode="floor")
    first = torch.cumsum(num_windows, dim=0) - num_windows
    is_real = step_mask(num_steps, states.shape[1])
    place = first[:, None] * size + torch.arange(states.shape[1], device=states.device)
    packed = states.new_zeros(int(num_windows.sum()) * size, states.shape[-1])
    return packed.index_copy(0, place[is_real], states[is_real]).view(-1, size, states.shape[-1])


def unpack(vectors: Tensor, counts: Tensor, length: int) -> Tensor:
    """Vectors of all clips one behind another `[N, D]`, `counts [B]` of each -> `[B, length, D]`, zero behind."""
    rows = vectors.new_zeros(len(counts), length, vectors.shape[-1])
    rows[step_mask(counts, length)] = vectors
    return rows


def join_in_time(parts: list[Tensor], lengths: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Parts `[B, A_i, D]` of lengths `[B]` each -> one behind another without gaps `[B, A, D]`, and the sums `[B]`."""
    total = torch.stack(lengths).sum(dim=0)
    joined = parts[0].new_zeros(len(total), int(total.max()), parts[0].shape[-1])
    places = torch.arange(joined.shape[1], device=joined.device)
    start = torch.zeros_like(total)
    for part, length in zip(parts, lengths, strict=True):
        is_here = (places >= start[:, None]) & (places < (start + length)[:, None])
        joined[is_here] = part[step_mask(length, part.shape[1])]
        start = start + length
    return joined, total
