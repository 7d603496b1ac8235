"""What attention costs on packed rows: a forward and a backward pass of SmolLM2-135M's layers with LoRA.

    OMP_NUM_THREADS=2 python tests/benchmarks/attention.py --dtype float32 --layers 30 --repetitions 5 --json out.json

Eight clips of 2-30 s at 12.5 positions a second, four questions about each, laid out with shared prefixes. `eager` and
`sdpa` get balanced rows and their dense mask, the others one row. They take turns; the best of the repetitions
counts. Seconds are of this process's CPU time, so that other jobs on the machine disturb less; with several threads it
is the sum over them. The vocabulary is left out, so that time and memory grow linearly with the layers.
Linux with glibc: the memory of a pass is counted from what the process holds after giving back what it can.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import time
from pathlib import Path

import numpy as np
import torch

from lalm.bench.machine import device_name, forget_peak, peak_memory_bytes, status_bytes
from lalm.bench.sizes import SMOL
from lalm.data.examples import Example
from lalm.data.packing import IGNORED, pack
from lalm.data.records import Record, Turn
from lalm.model.attention_mask import masks_of_layers
from lalm.model.decoder import add_lora, random_language_model
from lalm.model.grouped_attention import attend_in_tiles, grouped_inputs, is_grouped
from lalm.model.tiled_groups import why_no_kernel
from lalm.recipe.schema import LanguageModelSection, LoraSection

ATTENTIONS = ("eager", "sdpa", "grouped", "tiled")
"""`tiled`: grouped, by the compiled kernel; only in bfloat16, where the processor has tiles."""
NUM_CLIPS, QUESTIONS, POSITIONS_PER_SECOND = 8, 4, 12.5
SYSTEM_TOKENS, QUESTION_TOKENS, ANSWER_TOKENS = 24, (10, 25), (10, 35)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--checkpointing", action="store_true", help="recompute each layer in the backward pass")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    examples = invented_examples()
    has_kernel = arguments.dtype == "bfloat16" and torch.cpu._is_amx_tile_supported() and why_no_kernel() is None
    names = [name for name in ATTENTIONS if name != "tiled" or has_kernel]
    models = {name: decoder(name, arguments) for name in names}
    rows = {name: [] for name in names}
    for _ in range(arguments.repetitions):
        for name, model in models.items():
            rows[name].append(step(model, examples))
    best = {
        name: {key: min(row[key] for row in rows[name]) for key in ("forward", "backward", "peak_bytes")}
        | {"sum": rows[name][0]["sum"], "shape": rows[name][0]["shape"]}
        for name in names
    }
    total = best["grouped"]["forward"] + best["grouped"]["backward"]
    print(f"{device_name()}, {arguments.dtype}, {arguments.layers} layers, {sum(map(len, examples))} tokens alone")
    for name, row in best.items():
        ratio = (row["forward"] + row["backward"]) / total
        print(
            f"{name:8} rows {row['shape']!s:12} forward {row['forward']:7.2f} s  backward {row['backward']:7.2f} s  "
            f"{ratio:5.2f} x grouped  peak {row['peak_bytes'] / 2**20:7.0f} MiB  sum {row['sum']:.3f}"
        )
    if arguments.json:
        facts = {"device": device_name(), "dtype": arguments.dtype, "layers": arguments.layers}
        arguments.json.write_text(json.dumps(facts | {"attentions": best}, indent=1) + "\n", encoding="utf-8")


def invented_examples() -> list[Example]:
    """Questions about clips of lengths that are spread evenly; the tokens mean nothing."""
    random = np.random.default_rng(0)
    examples = []
    for clip in range(NUM_CLIPS):
        audio = round((2 + 28 * (clip + 0.5) / NUM_CLIPS) * POSITIONS_PER_SECOND)
        for question in range(QUESTIONS):
            sizes = [int(random.integers(*bounds, endpoint=True)) for bounds in (QUESTION_TOKENS, ANSWER_TOKENS)]
            ids = [2] * SYSTEM_TOKENS + [1] * audio + random.integers(3, 1000, sum(sizes)).tolist()
            labels = [IGNORED] * (len(ids) - sizes[1]) + ids[-sizes[1] :]
            turns = (Turn(role="user", content="q"), Turn(role="assistant", content="a"))
            record = Record(id=f"{clip}-{question}", audio=(f"{clip}.wav",), turns=turns)
            span = (SYSTEM_TOKENS, SYSTEM_TOKENS + audio)
            arrays = np.array(ids, np.int32), np.array(labels, np.int32)
            examples.append(Example(record, "bench", *arrays, (span,), (f"{clip}.wav",), (str(clip),)))
    return examples


def decoder(attention: str, arguments: argparse.Namespace) -> torch.nn.Module:
    """The decoder in the type asked for, frozen, with an adapter; all have the same weights."""
    sizes = SMOL.language_model | {"num_hidden_layers": arguments.layers}
    torch.manual_seed(0)
    kind = "grouped" if attention == "tiled" else attention
    model = random_language_model(LanguageModelSection(base="random", attention=kind, random_sizes=sizes))
    model.to(getattr(torch, arguments.dtype)).requires_grad_(False)
    if attention == "tiled":
        attend_in_tiles(model)
    add_lora(model, LoraSection(rank=SMOL.lora_rank, dropout=0.0, targets="qv"))
    if arguments.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def step(model: torch.nn.Module, examples: list[Example]) -> dict[str, float | str]:
    """One forward and backward pass: CPU seconds of each, and the memory that it takes beyond the weights."""
    tensors = pack(examples, "shared_prefix", 0, in_one_row=is_grouped(model)).tensors
    ids = {name: tensors[name] for name in ("group_ids", "branch_ids", "position_ids")}
    embeds = model.get_input_embeddings()(tensors["input_ids"]).detach().requires_grad_()
    weights = torch.randn(embeds.shape[-1], generator=torch.Generator().manual_seed(1))
    model.zero_grad(set_to_none=True)
    ctypes.CDLL(None).malloc_trim(0)  # else memory that the one before has left is reused unseen
    forget_peak()
    before, started = status_bytes("VmRSS"), time.process_time()
    if is_grouped(model):
        seen = grouped_inputs(**ids, attention_mask=None, dtype=embeds.dtype)
    else:
        seen = {"attention_mask": masks_of_layers(model.config, **ids, dtype=embeds.dtype)}
    states = model.get_decoder()(
        inputs_embeds=embeds, position_ids=ids["position_ids"], use_cache=False, **seen
    ).last_hidden_state
    loss = states.float()[tensors["labels"] != IGNORED].sum(dim=0) @ weights
    between = time.process_time()
    loss.backward()
    ended = time.process_time()
    return {
        "forward": between - started,
        "backward": ended - between,
        "peak_bytes": peak_memory_bytes() - before,
        "sum": loss.item(),
        "shape": "x".join(map(str, tensors["input_ids"].shape)),
    }


if __name__ == "__main__":
    main()
