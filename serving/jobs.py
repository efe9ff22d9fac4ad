"""A bounded queue of jobs and the thread that works on them, one after another.

Jobs are submitted and watched on the event loop. Their progress comes from the thread, as events that the loop delivers
in order.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic

from ..common.errors import UserError
from .images import EncodedImage, ImageRequest

DEFECT = "Generating failed. The server's log says why; please report it."
FIRST_ESTIMATE_S = 10.0  # of a job, before one has finished
logger = logging.getLogger(__name__)


class QueueFullError(Exception):
    """There are as many waiting jobs as there may be.

    Args:
        retry_after_s: Seconds after which a place is probably free.
    """

    def __init__(self, retry_after_s: float) -> None:
        super().__init__()
        self.retry_after_s = retry_after_s


class JobCancelledError(Exception):
    """The job was cancelled while it was being worked on."""


@dataclass(frozen=True)
class Queued:
    """A job waits.

    Attributes:
        position: Number of jobs before it.
    """

    position: int


@dataclass(frozen=True)
class Progressed:
    """A job is being worked on.

    Attributes:
        image: Index of the image within the job.
        stage: Stage of the image: `encoding`, `denoising` or `decoding`.
        done: How much of the stage is done.
        total: How much there is to do in this stage.
    """

    image: int
    stage: str
    done: int
    total: int


@dataclass(frozen=True)
class Finished:
    """A job is finished.

    Attributes:
        images: The images, in the order of the requests.
    """

    images: Sequence[EncodedImage]


@dataclass(frozen=True)
class Failed:
    """A job has failed.

    Attributes:
        message: What is wrong and what to do.
        status: The HTTP status that says so.
    """

    message: str
    status: int = 500


JobEvent = Queued | Progressed | Finished | Failed


@dataclass(eq=False)
class Job:
    """Images to generate. It must be created on the event loop.

    Attributes:
        requests: The images.
        accepted_at: When the job was created, on the monotonic clock.
    """

    requests: Sequence[ImageRequest]
    accepted_at: float = field(default_factory=monotonic)
    _events: asyncio.Queue[JobEvent] = field(default_factory=asyncio.Queue)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    _stop: threading.Event = field(default_factory=threading.Event)

    async def next_event(self, timeout_s: float) -> JobEvent | None:
        """Waits for what happens to the job next; None: nothing did."""
        try:
            async with asyncio.timeout(timeout_s):  # wait_for may swallow that the caller is cancelled (Python 3.11)
                return await self._events.get()
        except TimeoutError:
            return None

    def report(self, event: JobEvent) -> None:
        """Delivers an event to the loop, from any thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    def cancel(self) -> None:
        """Ends the job at its next step."""
        self._stop.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether the job is to end at its next step."""
        return self._stop.is_set()

    def report_progress(self, image: int, stage: str, done: int, total: int) -> None:
        """Reports the progress of an image.

        Raises:
            JobCancelledError: The job was cancelled.
        """
        if self.is_cancelled:
            raise JobCancelledError
        self.report(Progressed(image, stage, done, total))


class JobQueue:
    """Works on jobs one after another, in a thread.

    Args:
        work: Makes what a job asks for. It calls `Job.report_progress`.
        max_waiting: Number of jobs that may wait while one is being worked on.

    Attributes:
        busy_since: When the present job was begun, on the monotonic clock; None if there is none.
    """

    def __init__(self, work: Callable[[Job], Sequence[EncodedImage]], max_waiting: int) -> None:
        self._work, self._max_waiting = work, max_waiting
        self._waiting: deque[Job] = deque()
        self._current: Job | None = None
        self._changed = threading.Condition()
        self._is_closed = False
        self._seconds_per_image = FIRST_ESTIMATE_S
        self.busy_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="jobs", daemon=True)

    def start(self) -> None:
        """Begins to work."""
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def __len__(self) -> int:
        """The number of waiting jobs."""
        return len(self._waiting)

    def submit(self, job: Job) -> None:
        """Adds a job.

        Raises:
            QueueFullError: Too many jobs wait.
        """
        with self._changed:
            # A cancelled job ends at its next step, so its place is free already.
            is_busy = self._current is not None and not self._current.is_cancelled
            if self._is_closed or len(self._waiting) + is_busy > self._max_waiting:
                raise QueueFullError(self._estimate_wait())
            self._waiting.append(job)
            job.report(Queued(len(self._waiting) - 1 + (self._current is not None)))
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        """Cancels a job: one that waits leaves its place at once, the present one ends at its next step."""
        job.cancel()
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                self._report_positions()

    def close(self) -> None:
        """Refuses new jobs, fails those that wait, and cancels the present one."""
        with self._changed:
            self._is_closed = True
            for job in self._waiting:
                job.report(Failed("The server is being stopped. Try again later.", 503))
            self._waiting.clear()
            if self._current is not None:
                self._current.cancel()
            self._changed.notify()

    def _estimate_wait(self) -> float:
        """Seconds until the present job is finished, from the time that images took."""
        images = len(self._current.requests) if self._current else 1
        elapsed = monotonic() - self.busy_since if self.busy_since is not None else 0.0
        return max(1.0, images * self._seconds_per_image - elapsed)

    def _report_positions(self) -> None:
        for index, job in enumerate(self._waiting):
            job.report(Queued(index + (self._current is not None)))

    def _run(self) -> None:
        while (job := self._take()) is not None:
            job.report(self._finish(job))
            with self._changed:
                self._current, self.busy_since = None, None

    def _take(self) -> Job | None:
        """Waits for the next job; None: the queue was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if not self._waiting:
                return None
            self._current, self.busy_since = self._waiting.popleft(), monotonic()
            self._report_positions()
            return self._current

    def _finish(self, job: Job) -> JobEvent:
        """Works on a job, and says how that ended."""
        start = monotonic()
        try:
            images = self._work(job)
        except JobCancelledError:
            return Failed("The request was cancelled. Send it again.", 503)
        except UserError as error:
            return Failed(str(error))
        except Exception:
            logger.exception("Generating failed")
            return Failed(DEFECT)
        self._seconds_per_image = (monotonic() - start) / len(job.requests)
        return Finished(images)
