"""The pipeline behind the server: checks requests, generates their images, and warms up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter

from ..common.progress import Progress, no_progress
from ..prompts.advice import advise_on_prompt
from ..runtime.generation_request import GenerationRequest
from ..runtime.image_file import DEFAULT_QUALITY, encode_image
from ..runtime.image_metadata import Detail, ImageOrigin, build_save_options
from ..runtime.memory_need import require_memory
from ..runtime.onnx.sessions import CPU_PROVIDERS
from ..runtime.pipeline import ImagePipeline
from ..storage.outdated_results import digest_published
from .images import EncodedImage, ImageFacts, ImageRequest
from .jobs import Job
from .metrics import Metrics

WARM_UP = ImageRequest(GenerationRequest("a white wall", steps=1), "png", DEFAULT_QUALITY)

PNG_OPTIONS = {"compress_level": 4}  # half the time of the default, for files that are a tenth larger


class Engine:
    """Generates the images of jobs.

    Args:
        artifact: Folder of the artifact, or of its graphs.
        low_memory: Whether one graph is in memory at a time even if all fit.
        providers: Execution providers of ONNX Runtime; empty for the CPU.
        metrics: Where the time of images is recorded.
        threads: Threads of a graph on the CPU; None: as the artifact's recipe says.
        provenance: What files say of how they were generated.

    Raises:
        UserError: The artifact cannot be run, or there is not enough memory free to load it.
    """

    def __init__(
        self,
        artifact: Path,
        low_memory: bool,
        providers: Sequence[str],
        metrics: Metrics,
        threads: int | None = None,
        provenance: Detail = "hash",
    ) -> None:
        keep_loaded = False if low_memory else None
        self.pipeline = ImagePipeline(artifact, keep_loaded, providers or CPU_PROVIDERS, threads=threads)
        self._metrics, self._provenance = metrics, provenance
        self._digest = digest_published(self.pipeline.folder) or ""
        self.default_size = self.pipeline.resolve_size()
        require_memory(self.pipeline.folder, self.pipeline.keep_loaded)

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
        quality = None if request.format == "png" else request.quality
        origin = ImageOrigin.from_request(
            request.generation, self.pipeline.pipeline_class, self._digest, self.pipeline.engine, quality
        )
        origin = replace(origin, image_sha256=request.start_sha256)
        options = build_save_options(request.format.upper(), origin, self._provenance)
        if request.format == "png":
            options |= PNG_OPTIONS
        return EncodedImage(encode_image(image, request.format, request.quality, options), facts)
