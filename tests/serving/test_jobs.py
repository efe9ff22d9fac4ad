"""The queue of jobs."""

from __future__ import annotations

import asyncio
import threading

import pytest

from edgepress.runtime.generation_request import GenerationRequest
from edgepress.serving.images import ImageRequest
from edgepress.serving.jobs import Finished, Job, JobQueue, QueueFullError

REQUESTS = (ImageRequest(GenerationRequest("a red square"), "png", 90),)


def test_a_cancelled_job_holds_no_place_while_it_ends() -> None:
    began, may_end = threading.Event(), threading.Event()

    def work(_: Job) -> tuple[()]:
        began.set()
        may_end.wait(10)
        return ()

    async def submit_three_jobs() -> None:
        queue = JobQueue(work, max_waiting=0)
        queue.start()
        first = Job(REQUESTS)
        queue.submit(first)
        assert began.wait(10)
        with pytest.raises(QueueFullError):
            queue.submit(Job(REQUESTS))
        queue.cancel(first)
        third = Job(REQUESTS)
        queue.submit(third)
        may_end.set()
        async with asyncio.timeout(10):
            while not isinstance(await third.next_event(10), Finished):
                pass
        queue.close()

    asyncio.run(submit_three_jobs())
