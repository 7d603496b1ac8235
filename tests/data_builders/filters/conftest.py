"""Short ways to make records and runs of filters."""

from __future__ import annotations

from typing import Any

import pytest
from invented_rows import make_record

from data_builders.filters.base import Funnel, run_filters


@pytest.fixture
def record():
    """A function that makes a record: number, question, answer, and any field."""
    return make_record


@pytest.fixture
def run():
    """A function that runs filters over a list: kept records, rejects as (filter, id, reason, note), the funnel."""

    def call(records, *filters):
        rejects: list[tuple[str, str, str, Any]] = []
        funnel = Funnel()
        kept = list(
            run_filters(
                lambda: iter(records),
                filters,
                funnel,
                lambda name, record, verdict: rejects.append((name, record.id, verdict.reason, verdict.note)),
            )
        )
        return kept, rejects, funnel

    return call
