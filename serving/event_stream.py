"""Server-sent events: a job's progress as a browser reads it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from .errors import ApiError
from .images import EncodedImage
from .jobs import Failed, Finished, Job, JobEvent, Progressed, Queued
from .service import Service

MEDIA_TYPE = "text/event-stream"
HEARTBEAT = ": waiting\n\n"  # a comment


def stream_job(
    service: Service,
    job: Job,
    describe: Callable[[EncodedImage], dict[str, Any]],
    image_event: str,
    with_progress: bool,
) -> StreamingResponse:
    """Answers with the events of a job: `queued`, `progress`, one for each image, and `error`.

    Args:
        service: The service.
        job: The job.
        describe: Returns the data of an image's event.
        image_event: The name of an image's event.
        with_progress: Whether to send `queued` and `progress`.
    """

    async def lines() -> AsyncGenerator[str, None]:
        async with aclosing(service.follow(job)) as events:
            async for event in events:
                if event is None:
                    yield HEARTBEAT
                elif isinstance(event, Queued | Progressed) and not with_progress:
                    continue
                elif isinstance(event, Finished):
                    for image in event.images:
                        yield format_event(image_event, describe(image))
                else:
                    yield _format(event)

    return _EventResponse(lines())


class _EventResponse(StreamingResponse):
    """A stream whose generator is closed as soon as its client leaves, even while a line is being sent."""

    media_type = MEDIA_TYPE

    def __init__(self, lines: AsyncGenerator[str, None]) -> None:
        super().__init__(lines)
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._lines.aclose()


def format_event(name: str, data: dict[str, Any]) -> str:
    """Formats an event, whose data is JSON in one line."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"


def _format(event: JobEvent) -> str:
    if isinstance(event, Queued):
        return format_event("queued", asdict(event))
    if isinstance(event, Progressed):
        return format_event("progress", asdict(event))
    assert isinstance(event, Failed)
    return format_event("error", ApiError(event.status, event.message).to_content())
