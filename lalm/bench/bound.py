"""What would be left of a step if nothing but the decoder's linear layers took time: the bound of its shapes here.

Matrices of a small model are narrow, and a processor multiplies them at a part of its peak. Each distinct product of a
pass is timed alone, forward and backward (weights are frozen: the gradient of the input, none of theirs), and the times
are added up. Attention, softmax, norms, activations, the adapter and the optimizer count as nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from lalm.bench.machine import best_seconds
from lalm.bench.ours import OurRun
from lalm.bench.sizes import Sizes

Product = tuple[int, int, int]
"""Rows, inner width, columns."""


@dataclass(frozen=True)
class Products:
    """What the side `products` times: how often each shape is multiplied in an epoch, in which type."""

    counts: dict[Product, int]
    dtype: str


def linear_products(sizes: Sizes, *, rows: int, logit_rows: int) -> Counter[Product]:
    """The products of one pass over `rows` positions, of which `logit_rows` have labels."""
    model = sizes.language_model
    width, inner, heads = model["hidden_size"], model["intermediate_size"], model["num_attention_heads"]
    head = model.get("head_dim", width // heads)
    queries, keys = heads * head, model["num_key_value_heads"] * head
    layer = ((width, queries), (width, keys), (width, keys), (queries, width), *[(width, inner)] * 2, (inner, width))
    found: Counter[Product] = Counter()
    for taken, given in layer:
        for product in ((rows, taken, given), (rows, given, taken)):  # forward, and the gradient of the input
            found[product] += model["num_hidden_layers"]
    if logit_rows:
        vocabulary = model["vocab_size"]
        found.update([(logit_rows, width, vocabulary), (logit_rows, vocabulary, width)])
    return found


def products_of(run: OurRun, epoch: dict[str, Any], dtype: str) -> Products:
    """Of an epoch that was measured: its passes were `epoch["work"]["decoder_calls"]`, of one mean length."""
    calls = max(1, round(epoch["work"]["decoder_calls"] / epoch["epochs"]))
    rows, logit_rows = (
        round(epoch["work"].get(name, 0) / epoch["epochs"] / calls) for name in ("decoder_positions", "logit_rows")
    )
    one = linear_products(run.sizes, rows=rows, logit_rows=logit_rows)
    return Products({product: count * calls for product, count in one.items()}, dtype)


def time_products(products: Products, pace: Any) -> None:
    """A side of a measurement: seconds of all products, each at the best of several calls."""
    pace.wait()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype, total, flops = getattr(torch, products.dtype), 0.0, 0.0
    for (rows, inner, columns), count in products.counts.items():
        left = torch.randn(rows, inner, device=device).to(dtype)
        right = torch.randn(columns, inner, device=device).to(dtype)
        total += count * best_seconds(partial(torch.nn.functional.linear, left, right))
        flops += count * 2 * rows * inner * columns
    pace.done({"seconds": total, "flops": flops})


def bound_of(measured: dict[str, Any], epoch: dict[str, Any], num_records: float, peak: float) -> dict[str, float]:
    """Samples a second and share of the peak if nothing else took time, and the products' share of the epoch."""
    useful = epoch["useful_flops_per_second"] * epoch["seconds"] / epoch["epochs"]
    return {
        "seconds": measured["seconds"],
        "samples_per_second": num_records / measured["seconds"],
        "share_of_peak": useful / measured["seconds"] / peak,
        "product_flops_per_second": measured["flops"] / measured["seconds"],
        "share_of_epoch": measured["seconds"] / (epoch["seconds"] / epoch["epochs"]),
    }
