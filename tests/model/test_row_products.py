"""Products with their rows dealt out: torch's own to a rounding, and in compiled graphs where they narrow."""

from __future__ import annotations

import pytest
import torch

from lalm.model import row_products
from lalm.model.row_products import NarrowingProducts, row_product, why_no_row_products


@pytest.fixture
def rows_dealt_out():
    """Two threads, whatever the tests have; skips where products are not for that."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        if (reason := why_no_row_products()) is not None:
            pytest.skip(reason)
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("rows_dealt_out")
@pytest.mark.parametrize("num_rows", [1, 31, 64, 257])
@pytest.mark.parametrize("is_across", [False, True])
def test_products_are_torchs(num_rows, is_across):
    random = torch.Generator().manual_seed(num_rows)
    left = torch.randn(num_rows, 384, generator=random).bfloat16()
    right = torch.randn(384, 192, generator=random).bfloat16()
    right = right.t().contiguous().t() if is_across else right
    exact = left.double() @ right.double()
    for other in (left, left.t().contiguous().t()):
        assert (row_product(other, right).double() - exact).norm() < 3e-3 * exact.norm()
    torch.library.opcheck(torch.ops.lalm.row_product.default, (left, right))


@pytest.mark.slow
@pytest.mark.usefixtures("rows_dealt_out", "torch_compiles")
def test_a_compiled_graph_has_them_where_products_narrow():
    seen = []

    class Watched(NarrowingProducts):
        def __call__(self, graph):
            super().__call__(graph)
            targets = [node.target for node in graph.nodes if node.op == "call_function"]
            seen.append([target == torch.ops.lalm.row_product.default for target in targets if "mm" in str(target)
                         or target == torch.ops.lalm.row_product.default])  # fmt: skip

        def uuid(self):
            return None  # of this test alone: not cached

    up, down, small = (torch.nn.Linear(*sizes, bias=False) for sizes in ((256, 512), (512, 256), (256, 8)))
    layers = torch.nn.Sequential(up, torch.nn.ReLU(), down, small)
    layers.bfloat16().requires_grad_(False)

    def function(x):
        return layers(x).float().sum()

    torch.compiler.reset()
    compiled = torch.compile(function, dynamic=True, options={"post_grad_custom_post_pass": Watched()})
    for num_rows in (40, 72):
        x = torch.randn(num_rows, 256).bfloat16().requires_grad_()
        given, wanted = (torch.autograd.grad(f(x), x)[0].float() for f in (compiled, function))
        assert (given - wanted).norm() < 2e-2 * wanted.norm()
    # Forward: up, down, small. Backward: through small, down, up.
    assert seen == [[False, True, False], [False, False, True]]


@pytest.mark.parametrize("num_threads", [1, 16])
def test_one_thread_and_many_are_left_to_torch(num_threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: num_threads)
    assert why_no_row_products() == f"{num_threads} threads"


def test_what_cannot_be_compiled_says_why(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    monkeypatch.setattr(row_products, "why_no_library", lambda source: f"{source.name} does not compile here")
    assert why_no_row_products() == "row_products.cpp does not compile here"
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert why_no_row_products() == "no matrix tiles"
