"""What the server's routes share: its engine, queue, stores and settings."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import cast

from fastapi import Request
from PIL.Image import Image

from ..common.errors import summarize_error
from ..common.memory import malloc_trim
from .bodies import GenerateBody, ImagesBody, take_image
from .engine import Engine
from .errors import ApiError
from .images import EncodedImage, ImageRequest
from .jobs import Failed, Finished, Job, JobEvent, JobQueue, QueueFullError
from .metrics import Metrics
from .output_store import OutputStore
from .request_builder import RequestBuilder
from .settings import ServerSettings
from .start_images import decode_start_image, scale_start_image
from .template_store import TemplateStore

HEARTBEAT_S = 15.0  # after which a connection shows that it still lives
STUCK_FACTOR = 2  # times the time-out: a job that takes longer does not react to being cancelled
logger = logging.getLogger(__name__)


class ClientLeftError(Exception):
    """The client closed its connection before it was answered."""


@dataclass
class Service:
    """What the routes share.

    Attributes:
        settings: How the server runs.
        engine: Generates images.
        queue: The jobs.
        templates: The prompt templates.
        outputs: The generated images.
        builder: Makes requests of bodies.
        metrics: What Prometheus reads.
        is_ready: Whether an image was generated since the start.
    """

    settings: ServerSettings
    engine: Engine
    queue: JobQueue
    templates: TemplateStore
    outputs: OutputStore
    builder: RequestBuilder
    metrics: Metrics
    is_ready: bool = field(default=False)
    _decoder: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "images"))

    @property
    def is_alive(self) -> bool:
        """Whether jobs are being worked on, and the present one is not stuck."""
        if not self.is_ready:
            return True
        busy_since = self.queue.busy_since
        is_stuck = busy_since is not None and monotonic() - busy_since > STUCK_FACTOR * self.settings.limits.timeout_s
        return self.queue.is_alive and not is_stuck

    async def build(self, body: GenerateBody | ImagesBody) -> list[ImageRequest]:
        """Makes the requests of a body; an image to start from is decoded beside the event loop, one at a time.

        Raises:
            ApiError: A value is unknown, beyond a limit, or of no image that the pipeline can generate.
        """
        text = take_image(body)
        if not text:
            return self._build(body, None)
        return await asyncio.get_running_loop().run_in_executor(self._decoder, self._build_with_image, body, text)

    def _build_with_image(self, body: GenerateBody | ImagesBody, text: str) -> list[ImageRequest]:
        image = decode_start_image(text)
        try:
            return scale_start_image(self._build(body, image), image)
        finally:
            del image
            malloc_trim()  # or the thread keeps the memory of the largest image

    def _build(self, body: GenerateBody | ImagesBody, image: Image | None) -> list[ImageRequest]:
        if isinstance(body, ImagesBody):
            return self.builder.build_all(body, image)
        return [self.builder.build(body, image)]

    def submit(self, requests: Sequence[ImageRequest]) -> Job:
        """Adds a job.

        Raises:
            ApiError: The queue is full.
        """
        job = Job(requests)
        try:
            self.queue.submit(job)
        except QueueFullError as error:
            self.metrics.refused.inc()
            seconds = math.ceil(error.retry_after_s)
            headers = {"Retry-After": str(seconds)}
            raise ApiError(503, f"The queue is full. Try again in {seconds} s.", headers=headers) from error
        return job

    async def run(self, request: Request, requests: Sequence[ImageRequest]) -> list[EncodedImage]:
        """Generates images while the client waits.

        Args:
            request: The client's request, whose body was read.
            requests: The images.

        Raises:
            ApiError: The queue is full, generating failed, or it took too long.
            ClientLeftError: The client left.
        """
        job = self.submit(requests)
        finish = asyncio.ensure_future(self._wait(job))
        leave = asyncio.ensure_future(_wait_for_disconnect(request))
        try:
            await asyncio.wait({finish, leave}, return_when=asyncio.FIRST_COMPLETED)
            if finish.done():
                return finish.result()
            raise ClientLeftError
        finally:
            leave.cancel()
            finish.cancel()

    async def follow(self, job: Job) -> AsyncGenerator[JobEvent | None, None]:
        """Yields what happens to a job, and ends it when its time is over or the caller stops to ask.

        Yields:
            The events; None after a time without any.
        """
        timeout_s = self.settings.limits.timeout_s
        is_over = False
        try:
            while not is_over:
                remaining = job.accepted_at + timeout_s - monotonic()
                event = await job.next_event(min(HEARTBEAT_S, max(remaining, 0)))
                if event is None and remaining <= 0:
                    event = Failed(f"No image within {timeout_s:g} s. Ask for fewer steps.", 504)
                is_over = isinstance(event, Finished | Failed)
                yield event
        finally:
            if not is_over:
                self.metrics.cancelled.inc()
            self.queue.cancel(job)

    def store(self, image: EncodedImage) -> str | None:
        """Stores an image if images are kept; returns its name. A full disk is no reason to lose the image."""
        try:
            return self.outputs.add(image)
        except OSError as error:
            logger.warning("An image could not be stored: %s. Check the folder of --state.", summarize_error(error))
            return None

    async def _wait(self, job: Job) -> list[EncodedImage]:
        async with aclosing(self.follow(job)) as events:
            async for event in events:
                if isinstance(event, Failed):
                    raise ApiError(event.status, event.message)
                if isinstance(event, Finished):
                    return list(event.images)
        raise AssertionError("a job ends with one of these events")


def get_service(request: Request) -> Service:
    """The service of the server that a request came to."""
    return cast(Service, request.app.state.service)


async def _wait_for_disconnect(request: Request) -> None:
    with suppress(ApiError):  # what a client sends after its body
        while (await request.receive())["type"] != "http.disconnect":
            pass
