"""Paints pictures from an exported artifact: prompt, noise, denoising steps, decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..common.errors import UserError
from ..common.progress import Progress, no_progress
from ..models.base.host import Host, RunGraph, load_host
from ..models.registry import get_family
from .noise import torch_randn
from .onnx import exported as manifest
from .onnx.sessions import CPU_PROVIDERS, SessionPool
from .onnx.shape_buckets import BucketedSessions
from .rknn import exported as parts
from .rknn.backend import RknnBackend, open_backend
from .scheduler import make_schedule
from .tokenizer import PromptTokenizer
from .vae_tiling import make_tiled_decoder

MIN_TILE_SIZE = 64  # pixels: below it, tiles are mostly margin


@dataclass(frozen=True)
class GenerationRequest:
    """What is to be painted. size: height and width in pixels, None for the pipeline's native one.

    tile: side in pixels of the tiles that the picture is decoded in, None to decode it whole.
    """

    prompt: str
    seed: int = 0
    steps: int = 8
    size: tuple[int, int] | None = None
    tile_size: int | None = None


class ImagePipeline:
    """The graphs of an artifact, and the host that belongs to them.

    Args:
        artifact: its folder, or the `onnx` or `rknn` folder in it; ONNX graphs are taken where both are there.
        keep: whether graphs stay in memory between uses, for many pictures; otherwise there is one at a time.
        providers: of ONNX Runtime, in order.

    folder: of the export.

    Raises:
        UserError: nothing that this version can run was exported there.
    """

    def __init__(self, artifact: Path, keep_loaded: bool = True, providers: Sequence[str] = CPU_PROVIDERS) -> None:
        self._host: Host
        self._run: SessionPool | BucketedSessions | RknnBackend
        self._image_sizes: Sequence[tuple[int, int]] = ()
        exported: manifest.ExportedOnnx | parts.ExportedRknn
        if parts.is_rknn_artifact(artifact):
            exported = built = parts.load_exported_rknn(artifact)
            self._host, self._run = open_backend(built, keep_loaded)
        else:
            exported = graphs = manifest.load_exported_onnx(artifact)
            with manifest.reject_malformed(graphs.folder / manifest.CONFIG_FILE):
                self._host, self._image_sizes = (
                    load_host(get_family(graphs.pipeline_class), graphs.host_configs),
                    graphs.image_sizes,
                )
            sessions = SessionPool(graphs.graph_files, keep_loaded, providers, graphs.accuracy_level)
            self._run = BucketedSessions(sessions, graphs.bucketed_graphs) if graphs.bucketed_graphs else sessions
        self.folder = exported.folder
        with manifest.reject_malformed(exported.folder / manifest.CONFIG_FILE):
            self._scheduler = dict(exported.host_configs["scheduler"])
            longest = int(exported.host_configs.get("max_prompt_tokens", self._host.max_tokens))
        self._tokenizer = PromptTokenizer(exported.folder / "tokenizer", self._host.chat_template_kwargs, longest)

    @property
    def load_seconds(self) -> float:
        """Seconds that loading graphs has taken so far."""
        return self._run.load_seconds

    @property
    def engine(self) -> str:
        """What runs the graphs: its name, version, and on what."""
        return self._run.engine

    @property
    def is_simulated(self) -> bool:
        """Whether a simulator stands in for the device's processor."""
        return isinstance(self._run, RknnBackend) and self._run.is_simulated

    def generate(
        self, request: GenerationRequest, progress: Progress = no_progress, warn: Callable[[str], None] = lambda _: None
    ) -> Image.Image:
        """One RGB picture; the same on every machine but for rounding.

        Args:
            progress: stages `reading`, `painting` (a step at a time) and `decoding`.
            tell: is told what was cut of a prompt that is too long.

        Raises:
            UserError: a size or tile that cannot be, or an artifact that cannot be run.
        """
        height, width = self.resolve_size(request.size)
        shape = self._host.latent_shape(height, width)
        decode = self._select_decoder(request.tile_size)
        steps = make_schedule(self._scheduler, request.steps, self._host.count_image_tokens(height, width))
        latents = torch_randn(shape, request.seed)
        caption = self._encode_prompt(request.prompt, progress, warn)
        progress("painting", 0, request.steps)
        for number, timestep in enumerate(steps.timesteps):
            velocity = self._host.predict_velocity(self._run, latents, float(timestep), caption)
            latents = steps.step(latents, velocity, number)
            progress("painting", number + 1, request.steps)
        progress("decoding", 0, 1)
        picture = self._host.decode_latents(decode, latents)
        progress("decoding", 1, 1)
        return Image.fromarray(picture)

    def resolve_size(self, size: tuple[int, int] | None = None) -> tuple[int, int]:
        """Height and width: as asked, or the first that graphs of fixed shapes are there for, or the pipeline's own.

        Raises:
            UserError: graphs of fixed shapes are there for other sizes.
        """
        if self._image_sizes and (size or self._image_sizes[0]) not in self._image_sizes:
            there = ", ".join(f"{height}x{width}" for height, width in self._image_sizes)
            raise UserError(f"The artifact's graphs have fixed shapes, for pictures of {there}; give one as --size.")
        if size or self._image_sizes:
            return size or self._image_sizes[0]
        with manifest.reject_malformed(self.folder / manifest.CONFIG_FILE):
            return self._host.native_resolution, self._host.native_resolution

    def _encode_prompt(self, text: str, progress: Progress, warn: Callable[[str], None]) -> object:
        prompt = self._tokenizer.tokenize(text)
        if prompt.truncation_notice:
            warn(prompt.truncation_notice)
        progress("reading", 0, 1)
        caption = self._host.encode_prompt(self._run, prompt.ids)
        progress("reading", 1, 1)
        return caption

    def _select_decoder(self, tile: int | None) -> RunGraph:
        if tile is None:
            return self._run
        if isinstance(self._run, RknnBackend):
            raise UserError("RKNN parts decode as they were exported (rknn.tile in the recipe); leave --tile out.")
        if isinstance(self._run, BucketedSessions):
            raise UserError("Graphs of fixed shapes decode pictures whole; leave --tile out.")
        if tile < MIN_TILE_SIZE or tile % 2:
            raise UserError(f"Tiles of {tile} pixels cannot be; give {MIN_TILE_SIZE} or more, an even number.")
        return make_tiled_decoder(self._run.run, self._host.decoder_graph, self._host.decoder_stages, tile)
