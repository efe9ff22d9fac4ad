"""The pipeline behind the server: checks requests, generates their images, and warms up."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

from ..common.errors import UserError
from ..common.progress import Progress, no_progress
from ..common.system_memory import read_available_memory
from ..prompts.advice import advise_on_prompt
from ..runtime.generation_request import GenerationRequest
from ..runtime.image_file import DEFAULT_QUALITY, encode_image
from ..runtime.onnx.sessions import CPU_PROVIDERS
from ..runtime.pipeline import ImagePipeline
from .images import EncodedImage, ImageFacts, ImageRequest
from .jobs import Job
from .metrics import Metrics

WARM_UP = ImageRequest(GenerationRequest("a white wall", steps=1), "png", DEFAULT_QUALITY)


class Engine:
    """Generates the images of jobs.

    Args:
        artifact: Folder of the artifact, or of its graphs.
        low_memory: Whether one graph is in memory at a time.
        providers: Execution providers of ONNX Runtime; empty for the CPU.
        metrics: Where the time of images is recorded.

    Raises:
        UserError: The artifact cannot be run, or there is not enough memory free to load it.
    """

    def __init__(self, artifact: Path, low_memory: bool, providers: Sequence[str], metrics: Metrics) -> None:
        self.pipeline = ImagePipeline(artifact, keep_loaded=not low_memory, providers=providers or CPU_PROVIDERS)
        self._metrics = metrics
        self.default_size = self.pipeline.resolve_size()
        _require_memory(self.pipeline.folder, low_memory)

    def warm_up(self) -> None:
        """Generates an image in one step, which loads all graphs.

        Raises:
            UserError: The artifact cannot be run.
        """
        self._generate(WARM_UP, no_progress)

    def work(self, job: Job) -> list[EncodedImage]:
        """Generates the images of a job.

        Raises:
            UserError: An image cannot be generated.
            JobCancelledError: The job was cancelled.
        """
        images = []
        for index, request in enumerate(job.requests):
            image = self._generate(request, partial(job.report_progress, index))
            self._metrics.image_seconds.observe(image.facts.seconds)
            images.append(image)
        return images

    def _generate(self, request: ImageRequest, progress: Progress) -> EncodedImage:
        warnings: list[str] = []
        start = perf_counter()
        image = self.pipeline.generate(request.generation, progress, warnings.append)
        facts = ImageFacts(
            seed=request.generation.seed,
            steps=request.generation.steps,
            width=image.width,
            height=image.height,
            format=request.format,
            seconds=round(perf_counter() - start, 3),
            warnings=[*request.warnings, *warnings, *advise_on_prompt(request.generation.prompt)],
        )
        return EncodedImage(encode_image(image, request.format, request.quality), facts)


def _require_memory(folder: Path, low_memory: bool) -> None:
    """Refuses to load graphs that do not fit into the memory that is free now.

    Where CPU and GPU share their memory, neither the kernel's killer nor a service's limit sees what the GPU takes: a
    board that loads too much stops to answer.

    Raises:
        UserError: They do not fit.
    """
    sizes = [file.stat().st_size for file in folder.iterdir() if file.suffix in (".onnx", ".safetensors", ".rknn")]
    needed, available = max(sizes, default=0) if low_memory else sum(sizes), read_available_memory()
    if available is None or needed <= available:
        return
    advice = "Close other programs." if low_memory else "Close other programs, or give --low-memory."
    raise UserError(
        f"The graphs in {folder} take {needed / 2**30:.1f} GiB of memory, but only {available / 2**30:.1f} GiB are "
        f"free. {advice}"
    )
