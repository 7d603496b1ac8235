"""Forward and backward of LLaMA-7B with LoRA on a GPU: attention and kernels as ours, and as transformers has them.

    python tests/benchmarks/gpu_step.py --clips 64 --profile 20

Questions about clips of 2-30 s, four about each, from cached states of an encoder, as `lalm bench train --size 7b`
makes them; useful operations are counted as there. The optimizer, the Trainer and the loader are left out, and nothing
is timed between the parts of a pass. Best of three.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from lalm.bench.machine import datasheet_flops_per_second, device_name, forget_peak, matrix_flops_per_second
from lalm.bench.ours import OurRun, useful_flops
from lalm.bench.sizes import SIZES, bench_recipe
from lalm.bench.workload import Workload, write_workload
from lalm.data.dataset import build_stage_data
from lalm.model.build import build_model
from lalm.training.batches import fill_state_cache, open_clip_store, to_device
from lalm.training.distributed import join_processes
from lalm.training.stages import enter_stage

CASES = (("grouped", "liger", 8192), ("grouped", "liger", 16384), ("grouped", "none", 8192), ("sdpa", "none", 2048))
"""Attention, kernels, positions a pass may hold. `sdpa` gets rows with a dense mask, of which large ones cost more."""
TIMED_STEPS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="7b", choices=sorted(SIZES))
    parser.add_argument("--clips", type=int, default=64)
    parser.add_argument("--profile", type=int, default=0, help="Print so many of the first case's slowest kernels.")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("This measures a GPU, and there is none.")
    peak, printed = matrix_flops_per_second(torch.bfloat16), datasheet_flops_per_second()
    print(f"{device_name()}: matrix products at {peak / 1e12:.0f} TFLOP/s", flush=True)
    with tempfile.TemporaryDirectory() as name:
        workload = Workload(num_clips=options.clips, questions_per_clip=4, clip_seconds=(2.0, 30.0))
        write_workload(Path(name), workload)
        for number, (attention, kernels, tokens) in enumerate(CASES):
            rate, memory = measure(options, Path(name), workload, attention, kernels, tokens, shows=number == 0)
            gc.collect()
            torch.cuda.empty_cache()
            share = f", MFU {rate / printed:.1%}" if printed else ""
            print(
                f"{attention}, {kernels}, passes of {tokens}: {rate / 1e12:.0f} TFLOP/s, {rate / peak:.1%} of the "
                f"matrix peak{share}; {memory / 2**30:.1f} GiB",
                flush=True,
            )


def measure(
    options: Any, folder: Path, workload: Workload, attention: str, kernels: str, tokens: int, *, shows: bool
) -> tuple[float, int]:
    """Useful operations a second, and the most memory allocated."""
    sizes = SIZES[options.size]
    recipe = bench_recipe(sizes, folder, batch_records=workload.num_records, micro_batch_tokens=tokens)
    changes = {"attention": attention, "kernels": kernels}
    recipe = recipe.model_copy(update={"language_model": recipe.language_model.model_copy(update=changes)})
    state = join_processes()
    model, processor = build_model(recipe)
    clips = open_clip_store(recipe, processor)
    cache = fill_state_cache(recipe, [0], model, processor, clips, state, Console(quiet=True))
    enter_stage(model, recipe.stages[0])
    data = build_stage_data(recipe, 0, processor, clips, cache, in_one_row=model.packs_in_one_row)
    positions = {item.clips: sum(end - start for start, end in item.audio_spans) for item in data.examples}
    run = OurRun(sizes, workload, batch_records=workload.num_records)
    costs = useful_flops(recipe, run, data, sum(positions.values()), model.audio_tower.width)
    batches = [
        to_device(data.dataset.micro_batch(index).inputs, model.device)
        for index in range(data.plan.gradient_accumulation_steps)
    ]
    model.train()

    def step() -> float:
        torch.cuda.synchronize()
        started = time.perf_counter()
        for batch in batches:
            model(**batch).loss.backward()
        torch.cuda.synchronize()
        model.zero_grad()
        return time.perf_counter() - started

    step()
    forget_peak()
    best = min(step() for _ in range(TIMED_STEPS))
    memory = torch.cuda.max_memory_allocated()
    if shows and options.profile:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            step()
        print(profile.key_averages().table(sort_by="self_cuda_time_total", row_limit=options.profile))
    return sum(cost.total for cost in costs.values()) / best, memory


if __name__ == "__main__":
    main()
