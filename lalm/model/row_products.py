"""Products that narrow, in compiled layers on few threads: rows dealt out, so that no thread is idle.

oneDNN deals a product out by blocks that suit many cores. With two threads and a thousand rows, a product whose result
is not wider than its inner dimension (a gate's way down, and the way back of the way up) often is one block: a single
thread works. Here each thread multiplies its share of the rows: 2.1 TFLOP/s in the place of 1.1 at
`[1234, 1536] x [1536, 576]`, and within a tenth of oneDNN's own where that uses both.

`NarrowingProducts` puts them into the graphs of `lalm.model.compiled_layers`, forward and backward.
"""

from __future__ import annotations

from ctypes import c_int64, c_void_p
from pathlib import Path

import torch
from torch import Tensor, fx
from torch._inductor.custom_graph_pass import CustomGraphPass, get_hash_for_files

from lalm.model.native import library, why_no_library

SOURCE = Path(__file__).with_suffix(".cpp")
FEW_THREADS = 4
SMALLEST = 2**16
"""Numbers of the right matrix; an adapter's is smaller."""
ROWS = 32
"""A thread's share is a multiple of it."""


def why_no_row_products() -> str | None:
    """Why they cannot be had, or would not pay; None where they can."""
    if torch.get_num_threads() not in range(2, FEW_THREADS + 1):
        return f"{torch.get_num_threads()} threads"
    if not torch.cpu._is_amx_tile_supported():
        return "no matrix tiles"
    return why_no_library(SOURCE)


@torch.library.custom_op("lalm::row_product", mutates_args=())
def row_product(left: Tensor, right: Tensor) -> Tensor:
    """bfloat16 `[n, inner]` and `[inner, columns]` -> `[n, columns]`."""
    left = left.contiguous()
    right = right if 1 in right.stride() else right.contiguous()
    (num_rows, inner), columns = left.shape, right.shape[1]
    result = left.new_empty(num_rows, columns)
    share = -(-num_rows // torch.get_num_threads())
    step = -(-share // ROWS) * ROWS
    sizes = (num_rows, inner, columns, *right.stride(), step)
    pointers = (c_void_p(item.data_ptr()) for item in (left, right, result))
    library(SOURCE).product(*pointers, *map(c_int64, sizes))
    return result


@row_product.register_fake
def _(left, right):
    return left.new_empty(left.shape[0], right.shape[1])


class NarrowingProducts(CustomGraphPass):
    """Puts `row_product` in the place of torch's products that narrow."""

    def __call__(self, graph: fx.Graph) -> None:
        for node in graph.find_nodes(op="call_function", target=torch.ops.aten.mm.default):
            left, right = (item.meta["val"] for item in node.args)
            inner, columns = right.shape
            is_known = isinstance(inner, int) and isinstance(columns, int)
            if left.dtype == torch.bfloat16 and is_known and columns <= inner and inner * columns >= SMALLEST:
                node.target = torch.ops.lalm.row_product.default

    def uuid(self) -> bytes:
        return get_hash_for_files((__file__, str(SOURCE)))
