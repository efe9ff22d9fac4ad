"""Generates images from an exported artifact: encodes the prompt, denoises, decodes. Runs without torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, overload

import numpy as np
from PIL import Image

from ..common.arguments import MAY_BE_EMPTY, check_arguments
from ..common.errors import UserError
from ..common.progress import Progress, no_progress
from ..models.base.host import Host, RunGraph, load_host
from ..models.registry import get_family
from ..prompts.prompt import describe_missing_guidance
from ..prompts.truncation import warn_once
from ..recipes.execution import NumThreads
from .finite_outputs import require_finite_outputs
from .generation_request import GenerationRequest, require_valid
from .graph_sessions import GraphSessions
from .image_file import scale_image
from .malformed import reject_malformed
from .memory_need import check_image_memory, choose_keep_loaded
from .noise import torch_randn, torch_randn_sequence
from .onnx.arithmetic import warn_about_fp16_sums
from .onnx.exported import load_exported_onnx
from .onnx.sessions import CPU_PROVIDERS, SessionPool, resolve_providers
from .onnx.shape_buckets import BucketedSessions
from .openvino.sessions import OpenVinoSessions
from .rknn.backend import RknnBackend, open_backend
from .rknn.exported import is_rknn_artifact, load_exported_rknn
from .schedule import Schedule, skip_steps
from .scheduler import make_schedule
from .scheduler_config import check_supported_schedule
from .step_cache import StepCache, check_step_cache
from .thread_settings import resolve_threads
from .tokenizers import PromptTokenizers
from .vae_tiling import make_tiled_decoder

Engine = Literal["onnxruntime", "openvino"]
Prompt = Annotated[str, MAY_BE_EMPTY]
MIN_TILE_SIZE = 64  # pixels; smaller tiles consist mostly of margin
ENCODING, DENOISING, DECODING = "encoding", "denoising", "decoding"  # stages of progress


class ImagePipeline:
    """Generates images from an exported artifact, with ONNX Runtime or on an NPU.

    Example:
        >>> pipeline = ImagePipeline("artifacts/pi5")
        >>> image = pipeline("a plain white wall, large red letters", seed=0)

    Args:
        artifact: Folder of the artifact, or the `onnx` or `rknn` folder in it. If an artifact has both, the ONNX graphs
            are used.
        keep_loaded: Whether graphs stay in memory, which saves time when several images are generated. Otherwise one
            graph is in memory at a time. None: they stay if the artifact's memory plan fits the memory that is free.
        providers: Execution providers of ONNX Runtime, in order of preference.
        engine: What runs ONNX graphs: `onnxruntime`, or `openvino` on the CPU, which needs the extra `openvino`.
        threads: Threads of a graph on the CPU; 0: as the engine chooses; None: as the artifact's recipe says.

    Attributes:
        folder: Folder of the exported graphs.
        pipeline_class: Class of the pipeline that was exported.
        image_sizes: Heights and widths of the images that graphs of fixed shapes generate; empty for any size.
        size_multiple: Number of pixels that the sides of images of any size are multiples of.
        keep_loaded: Whether graphs stay in memory.
        threads: Threads of a graph on the CPU; 0: as the engine chooses.
        num_reused_steps: Steps of the last image that took an earlier velocity (`step_cache` of the request).

    Raises:
        UserError: The folder holds no export that this version can run.
    """

    @check_arguments
    def __init__(
        self,
        artifact: str | Path,
        keep_loaded: bool | None = None,
        providers: str | Sequence[str] = CPU_PROVIDERS,
        engine: Engine = "onnxruntime",
        threads: NumThreads | None = None,
    ) -> None:
        artifact, providers = Path(artifact), [providers] if isinstance(providers, str) else providers
        if is_rknn_artifact(artifact):
            self._open_rknn(artifact, keep_loaded, threads)
        else:
            self._open_onnx(artifact, keep_loaded, providers, engine, threads)
        self.num_reused_steps = 0
        with reject_malformed(self.folder):
            self._scheduler_config = dict(self._host_configs["scheduler"])
            check_supported_schedule(self._scheduler_config, self._host.scheduler_class)
            self.size_multiple: int = self._host.size_multiple
            limit = self._host_configs.get("max_prompt_tokens")
            max_tokens = None if limit is None else int(limit)
        self._tokenizers = PromptTokenizers(self.folder, self._host.prompt_formats, max_tokens)

    def _open_onnx(
        self,
        artifact: Path,
        keep_loaded: bool | None,
        providers: Sequence[str],
        engine: Engine,
        threads: int | None,
    ) -> None:
        exported = load_exported_onnx(artifact)
        self.folder: Path = exported.folder
        self.pipeline_class: str = exported.pipeline_class
        self._host_configs: Mapping[str, Any] = exported.host_configs
        with reject_malformed(self.folder):
            self._host: Host = load_host(get_family(exported.pipeline_class), exported.host_configs)
        self.keep_loaded = choose_keep_loaded(self.folder) if keep_loaded is None else keep_loaded
        settings = resolve_threads(exported.runtime, threads)
        self.threads = settings.threads
        if exported.uses_fp16:
            warn_about_fp16_sums(runs_on_cpu=tuple(resolve_providers(providers)) == CPU_PROVIDERS)
        sessions: GraphSessions
        if engine == "openvino":
            files, accuracy_level = exported.graph_files, exported.accuracy_level
            sessions = OpenVinoSessions(files, self.keep_loaded, accuracy_level, settings.threads)
        else:
            sessions = SessionPool(
                exported.graph_files,
                self.keep_loaded,
                providers,
                exported.accuracy_level,
                exported.linked_weights,
                settings,
            )
        self._run: GraphSessions | BucketedSessions | RknnBackend = sessions
        if exported.bucketed_graphs:
            self._run = BucketedSessions(sessions, exported.bucketed_graphs)
        self.image_sizes: Sequence[tuple[int, int]] = exported.image_sizes
        self._graphs = frozenset(exported.bucketed_graphs or exported.graph_files)

    def _open_rknn(self, artifact: Path, keep_loaded: bool | None, threads: int | None) -> None:
        exported = load_exported_rknn(artifact)
        self.folder, self.pipeline_class = exported.folder, exported.pipeline_class
        self._host_configs = exported.host_configs
        self.keep_loaded = choose_keep_loaded(self.folder) if keep_loaded is None else keep_loaded
        settings = resolve_threads(exported.runtime, threads)
        self.threads = settings.threads
        self._host, self._run = open_backend(exported, self.keep_loaded, settings)
        self.image_sizes = ()
        self._graphs = frozenset()

    @overload
    def __call__(
        self,
        prompt: str,
        *,
        seed: int = ...,
        steps: int = ...,
        size: tuple[int, int] | None = ...,
        tile_size: int | None = ...,
    ) -> Image.Image: ...

    @overload
    def __call__(
        self,
        prompt: list[str],
        *,
        seed: int = ...,
        steps: int = ...,
        size: tuple[int, int] | None = ...,
        tile_size: int | None = ...,
    ) -> list[Image.Image]: ...

    @check_arguments
    def __call__(
        self,
        prompt: Prompt | list[Prompt],
        *,
        seed: int = 0,
        steps: int = GenerationRequest.steps,
        size: tuple[int, int] | None = None,
        tile_size: int | None = None,
    ) -> Image.Image | list[Image.Image]:
        """Generates an image of a prompt, or one of each prompt of a list.

        Args:
            prompt: The prompt or prompts.
            seed: Seed of the first image; each further image has the next one.
            steps: Number of denoising steps.
            size: Height and width in pixels; None for the default of the artifact.
            tile_size: Side in pixels of the tiles that images are decoded in; None to decode them as a whole.

        Returns:
            An RGB image, or a list of them if `prompt` is a list.

        Raises:
            UserError: The size or the tile size is not supported, or the artifact cannot be run.
        """
        if isinstance(prompt, str):
            return self.generate(GenerationRequest(prompt, seed, steps, size, tile_size))
        requests = [GenerationRequest(text, seed + index, steps, size, tile_size) for index, text in enumerate(prompt)]
        return [self.generate(request) for request in requests]

    @check_arguments
    def generate(
        self,
        request: GenerationRequest,
        progress: Progress = no_progress,
        warn: Callable[[str], None] = warn_once,
    ) -> Image.Image:
        """Generates an RGB image; it is the same on every machine up to rounding.

        Args:
            request: The image to generate.
            progress: Reports the stages `encoding`, `denoising` (step by step) and `decoding`. An exception that it
                raises ends the generation.
            warn: Called with a sentence if the prompt was truncated, or the model needs guidance and gets none.

        Raises:
            UserError: The size, the tile size or the number of steps is not supported, there cannot be enough memory,
                the artifact cannot be run, or a graph gives NaN or infinite values.
        """
        shape, schedule, run_decoder = self._prepare(request)
        prompts = self._encode_prompts(request, progress, warn)
        if request.image is None:
            latents = torch_randn(shape, request.seed) * schedule.noise_scale
        else:
            latents = self._add_noise_to_image(request, request.image, shape, schedule)
        latents = self._denoise(request, latents, schedule, prompts, progress)
        progress(DECODING, 0, 1)
        image = self._host.decode_latents(self._guard(run_decoder, DECODING, request), latents)
        progress(DECODING, 1, 1)
        return Image.fromarray(image)

    @check_arguments
    def check_request(self, request: GenerationRequest) -> None:
        """Checks a request as `generate` does before it loads a graph, so that no work is lost to a later refusal.

        Raises:
            UserError: The prompt cannot be read, the size, the tile size or the number of steps is not supported, or
                there cannot be enough memory.
        """
        self._prepare(request)
        for text in self._list_texts(request):
            self._tokenizers.tokenize(text)

    @property
    def takes_guidance(self) -> bool:
        """Whether a guidance scale changes anything."""
        return self._host.takes_guidance

    @check_arguments
    def takes_negative_prompt(self, guidance: float) -> bool:
        """Whether a negative prompt has an effect at a guidance scale."""
        return self._host.takes_negative_prompt and self._host.is_guided(guidance)

    @check_arguments
    def resolve_size(self, size: tuple[int, int] | None = None) -> tuple[int, int]:
        """Returns the height and width of an image.

        Args:
            size: The requested size; None for the first size that the artifact was exported for, or, if it was exported
                for any size, the native one of the pipeline.

        Raises:
            UserError: The artifact was exported for other sizes.
        """
        if self.image_sizes:
            size = size or self.image_sizes[0]
            if size not in self.image_sizes:
                exported = ", ".join(f"{height}x{width}" for height, width in self.image_sizes)
                raise UserError(
                    f"The artifact was exported for images of {exported}, but {size[0]}x{size[1]} was requested. "
                    "Choose one of its sizes."
                )
            return size
        if size:
            return size
        with reject_malformed(self.folder):
            return self._host.native_resolution, self._host.native_resolution

    @check_arguments
    def resolve_request_size(self, request: GenerationRequest) -> tuple[int, int]:
        """Returns the height and width of the image of a request.

        Args:
            request: The request; without a size, it is that of its image, lowered to what the pipeline supports.

        Raises:
            UserError: The artifact was exported for other sizes, or the image is smaller than a patch.
        """
        if request.image is None or request.size or self.image_sizes or self._is_rknn:
            return self.resolve_size(request.size)
        multiple = self.size_multiple
        size = (request.image.height // multiple * multiple, request.image.width // multiple * multiple)
        if not all(size):
            raise UserError(
                f"The image is {request.image.width} pixels wide and {request.image.height} high, smaller than the "
                f"{multiple} pixels of a patch. Give a larger one, or a size."
            )
        return size

    @property
    def load_seconds(self) -> float:
        """Time spent loading graphs so far, in seconds."""
        return self._run.load_seconds

    @property
    def engine(self) -> str:
        """Name and version of the engine that runs the graphs, and the devices it uses."""
        return self._run.engine

    @property
    def takes_images(self) -> bool:
        """Whether images can start from another one: whether the graph that reads it was exported."""
        return self._host.encoder_graph in self._graphs

    @property
    def is_simulated(self) -> bool:
        """Whether a simulator stands in for the NPU."""
        return isinstance(self._run, RknnBackend) and self._run.is_simulated

    @property
    def _is_rknn(self) -> bool:
        return isinstance(self._run, RknnBackend)

    def _prepare(self, request: GenerationRequest) -> tuple[tuple[int, ...], Schedule, RunGraph]:
        """The shape of the latents, the schedule from the first step that is done, and what decodes."""
        require_valid(request)
        height, width = self.resolve_request_size(request)
        shape = self._host.latent_shape(height, width)
        if request.image is not None:
            self._require_encoder()
        run_decoder = self._select_decoder(request.tile_size)
        decodes_whole = run_decoder is self._run and not self._is_rknn
        is_started = request.image is not None
        check_image_memory(self.folder, self._host_configs, (height, width), decodes_whole, encodes=is_started)
        self._check_negative_prompt(request)
        image_tokens = self._host.count_image_tokens(height, width)
        schedule = make_schedule(self._scheduler_config, request.steps, image_tokens, self._host)
        if request.image is not None:
            schedule = skip_steps(schedule, request.strength, self._host.floors_image_steps)
        check_step_cache(request.step_cache, len(schedule.timesteps))
        return shape, schedule, run_decoder

    def _check_negative_prompt(self, request: GenerationRequest) -> None:
        if request.negative_prompt and not self._host.takes_negative_prompt:
            raise UserError(f"A {self.pipeline_class} takes no negative prompt. Leave 'negative_prompt' out.")
        if request.negative_prompt and not self.takes_negative_prompt(request.guidance):
            raise UserError(
                "'negative_prompt' has no effect without guidance. Set guidance, such as 4, or leave it out."
            )

    def _require_encoder(self) -> None:
        if not self._host.encoder_graph:
            raise UserError(
                f"A {self.pipeline_class} takes no 'image' to start from: {self._host.image_refusal}. Leave it out."
            )
        if not self.takes_images:
            raise UserError(
                f"{self.folder} has no graph {self._host.encoder_graph!r}, which reads images. Export the artifact "
                f"again with it: 'edgepress export onnx --extra-graph {self._host.encoder_graph}'."
            )

    def _add_noise_to_image(
        self, request: GenerationRequest, image: Image.Image, shape: tuple[int, ...], schedule: Schedule
    ) -> Any:
        """Encodes an image, scaled to the size of the request, and adds the noise of the schedule's first step."""
        drawn, noise = torch_randn_sequence(shape, request.seed, 2)
        scaled = scale_image(image, self.resolve_request_size(request))
        run = self._guard(self._run, ENCODING, request)
        return schedule.add_noise(self._host.encode_image(run, np.asarray(scaled), drawn), noise)

    def _guard(self, run: RunGraph, stage: str, request: GenerationRequest) -> RunGraph:
        """Runs graphs as `run` does; outputs that are not finite are errors if the request says so."""
        return require_finite_outputs(run, stage, self.folder) if request.require_finite else run

    def _encode_prompts(self, request: GenerationRequest, progress: Progress, warn: Callable[[str], None]) -> list[Any]:
        """Encodes the prompt and, with guidance, the negative prompt."""
        run, texts = self._guard(self._run, ENCODING, request), self._list_texts(request)
        if self._host.needs_guidance and not request.guidance:
            warn(describe_missing_guidance(self.pipeline_class))
        encoded: list[Any] = []
        progress(ENCODING, 0, len(texts))
        for text in texts:
            encoded_text = self._tokenizers.tokenize(text)
            if encoded_text.truncation_notice:
                warn(encoded_text.truncation_notice)
            encoded.append(self._host.encode_prompt(run, encoded_text.tokens))
            progress(ENCODING, len(encoded), len(texts))
        if self._host.is_guided(request.guidance) and len(encoded) == 1:
            encoded.append(self._host.zero_prompt(encoded[0]))
        return encoded

    def _list_texts(self, request: GenerationRequest) -> list[str]:
        """The texts to encode: the prompt and, with guidance, the negative prompt, if the pipeline encodes it."""
        if not self._host.is_guided(request.guidance):
            return [request.prompt]
        negative = self._host.choose_negative_prompt(request.negative_prompt)
        return [request.prompt] if negative is None else [request.prompt, negative]

    def _denoise(
        self,
        request: GenerationRequest,
        latents: Any,
        schedule: Schedule,
        prompts: Sequence[Any],
        progress: Progress,
    ) -> Any:
        """Runs all denoising steps, from noise to the latents of an image."""
        run, steps, guidance = self._guard(self._run, DENOISING, request), len(schedule.timesteps), request.guidance
        cache = StepCache(request.step_cache)

        def predict(scaled: Any, timestep: float) -> Any:
            velocity, *negatives = (
                self._host.predict_velocity(run, scaled, timestep, prompt, guidance) for prompt in prompts
            )
            for negative in negatives:
                velocity = self._host.apply_guidance(velocity, negative, guidance)
            return velocity

        progress(DENOISING, 0, steps)
        for index, timestep in enumerate(schedule.timesteps):
            scaled = schedule.scale_input(latents, index)
            velocity = cache.get_velocity(scaled, index == steps - 1, partial(predict, scaled, float(timestep)))
            latents = schedule.step(latents, velocity, index)
            progress(DENOISING, index + 1, steps)
        self.num_reused_steps = cache.num_reused
        return latents

    def _select_decoder(self, tile_size: int | None) -> RunGraph:
        if tile_size is None:
            return self._run
        if isinstance(self._run, RknnBackend):
            raise UserError("RKNN parts decode as they were exported (rknn.tile in the recipe). Give no tile size.")
        if isinstance(self._run, BucketedSessions):
            raise UserError(
                f"The graphs in {self.folder} have fixed shapes and decode images as a whole. Give no tile size."
            )
        if tile_size < MIN_TILE_SIZE or tile_size % 2:
            raise UserError(f"Invalid tile size {tile_size}: it must be even and at least {MIN_TILE_SIZE}.")
        stages = self._host.decoder_stages
        if stages is None:
            raise UserError(f"The decoder of a {self.pipeline_class} does not run in tiles. Give no tile size.")
        missing = {stages.first_graph, *(stage.graph for stage in stages.stages)} - self._graphs
        if missing:
            raise UserError(
                f"{self.folder} has no graphs that decode in tiles, such as {min(missing)}. Give no tile size, or "
                "export the artifact again."
            )
        return make_tiled_decoder(self._run.run, self._host.decoder_graph, stages, tile_size)
