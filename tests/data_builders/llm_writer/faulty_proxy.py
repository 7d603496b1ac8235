"""The stub's faults in front of a real server: what is not made to fail is passed on, and answered there."""

from __future__ import annotations

from typing import Any

import httpx
from stub_endpoint import Plan, StubEndpoint


class FaultyProxy(StubEndpoint):
    """Use as a context manager; `url` is its base. Set `upstream` to that of the real server before anybody asks."""

    upstream: str

    def __init__(self, plan: Plan, **options: Any):
        super().__init__(lambda body: "", plan, **options)
        self.refusals: list[str] = []
        """What the real server said where it gave no reply."""

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        try:
            async with httpx.AsyncClient(timeout=None) as client:
                response = await client.post(f"{self.upstream}/chat/completions", json=body)
        except httpx.TransportError as error:  # The server was stopped; whoever asked was killed before.
            raise ConnectionError(str(error)) from None
        if response.status_code != 200:
            self.refusals.append(response.text)
            raise ConnectionError(response.text)
        return response.json()
