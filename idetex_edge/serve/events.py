"""Server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, Final, TypeVar

from fastapi.responses import StreamingResponse

EVENT_STREAM: Final = "text/event-stream"

T = TypeVar("T")


def event(data: Mapping[str, Any], name: str | None = None) -> str:
    """One event with JSON as its data."""
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(data, allow_nan=False)}\n\n"


async def with_first(stream: AsyncGenerator[T, None]) -> AsyncIterator[T]:
    """The same items, the first awaited right now: what fails before it is raised here."""
    first = await anext(stream, None)

    async def items() -> AsyncIterator[T]:
        async with aclosing(stream):
            if first is not None:
                yield first
            async for item in stream:
                yield item

    return items()


def streamed(events: AsyncIterator[str]) -> StreamingResponse:
    """An answer of events, which no proxy should hold back."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, media_type=EVENT_STREAM, headers=headers)
