"""Paints pictures from an exported artifact: prompt, noise, denoising steps, decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..errors import UserError
from ..models import family_of
from ..models.host import Host, Run, host_of
from ..progress import Progress, silent
from . import manifest
from .buckets import Picked
from .noise import noise
from .prompt import Reader
from .rknn import manifest as parts
from .rknn.backend import Backend, opened
from .schedule import schedule
from .sessions import CPU, Sessions
from .tiles import in_tiles

LEAST_TILE = 64  # pixels: below it, tiles are mostly margin


@dataclass(frozen=True)
class Wish:
    """What is to be painted. size: height and width in pixels, None for the pipeline's native one.

    tile: side in pixels of the tiles that the picture is decoded in, None to decode it whole.
    """

    prompt: str
    seed: int = 0
    steps: int = 8
    size: tuple[int, int] | None = None
    tile: int | None = None


class Painter:
    """The graphs of an artifact, and the host that belongs to them.

    Args:
        artifact: its folder, or the `onnx` or `rknn` folder in it; ONNX graphs are taken where both are there.
        keep: whether graphs stay in memory between uses, for many pictures; otherwise there is one at a time.
        providers: of ONNX Runtime, in order.

    folder: of the export.

    Raises:
        UserError: nothing that this version can run was exported there.
    """

    def __init__(self, artifact: Path, keep: bool = True, providers: Sequence[str] = CPU) -> None:
        self._host: Host
        self._run: Sessions | Picked | Backend
        self._sizes: Sequence[tuple[int, int]] = ()
        exported: manifest.Exported | parts.Exported
        if parts.there(artifact):
            exported = built = parts.read(artifact)
            self._host, self._run = opened(built, keep)
        else:
            exported = graphs = manifest.read(artifact)
            with manifest.believed(graphs.folder / manifest.NAME):
                self._host, self._sizes = host_of(family_of(graphs.family), graphs.host), graphs.sizes
            sessions = Sessions(graphs.graphs, keep, providers, graphs.accuracy_level)
            self._run = Picked(sessions, graphs.shaped) if graphs.shaped else sessions
        self.folder = exported.folder
        with manifest.believed(exported.folder / manifest.NAME):
            self._scheduler = dict(exported.host["scheduler"])
            longest = int(exported.host.get("max_prompt_tokens", self._host.max_tokens))
        self._reader = Reader(exported.folder / "tokenizer", self._host.template, longest)

    @property
    def loading(self) -> float:
        """Seconds that loading graphs has taken so far."""
        return self._run.loading

    @property
    def engine(self) -> str:
        """What runs the graphs: its name, version, and on what."""
        return self._run.engine

    @property
    def simulated(self) -> bool:
        """Whether a simulator stands in for the device's processor."""
        return isinstance(self._run, Backend) and self._run.simulated

    def paint(
        self, wish: Wish, progress: Progress = silent, tell: Callable[[str], None] = lambda _: None
    ) -> Image.Image:
        """One RGB picture; the same on every machine but for rounding.

        Args:
            progress: stages `reading`, `painting` (a step at a time) and `decoding`.
            tell: is told what was cut of a prompt that is too long.

        Raises:
            UserError: a size or tile that cannot be, or an artifact that cannot be run.
        """
        height, width = self.size(wish.size)
        shape = self._host.latent_shape(height, width)
        decode = self._decoder(wish.tile)
        steps = schedule(self._scheduler, wish.steps, self._host.tokens(height, width))
        latents = noise(shape, wish.seed)
        caption = self._read(wish.prompt, progress, tell)
        progress("painting", 0, wish.steps)
        for number, timestep in enumerate(steps.timesteps):
            velocity = self._host.velocity(self._run, latents, float(timestep), caption)
            latents = steps.step(latents, velocity, number)
            progress("painting", number + 1, wish.steps)
        progress("decoding", 0, 1)
        picture = self._host.decode(decode, latents)
        progress("decoding", 1, 1)
        return Image.fromarray(picture)

    def size(self, asked: tuple[int, int] | None = None) -> tuple[int, int]:
        """Height and width: as asked, or the first that graphs of fixed shapes are there for, or the pipeline's own.

        Raises:
            UserError: graphs of fixed shapes are there for other sizes.
        """
        if self._sizes and (asked or self._sizes[0]) not in self._sizes:
            there = ", ".join(f"{height}x{width}" for height, width in self._sizes)
            raise UserError(f"The artifact's graphs have fixed shapes, for pictures of {there}; give one as --size.")
        if asked or self._sizes:
            return asked or self._sizes[0]
        with manifest.believed(self.folder / manifest.NAME):
            return self._host.native, self._host.native

    def _read(self, text: str, progress: Progress, tell: Callable[[str], None]) -> object:
        prompt = self._reader.read(text)
        if prompt.cut:
            tell(prompt.cut)
        progress("reading", 0, 1)
        caption = self._host.encode(self._run, prompt.ids)
        progress("reading", 1, 1)
        return caption

    def _decoder(self, tile: int | None) -> Run:
        if tile is None:
            return self._run
        if isinstance(self._run, Backend):
            raise UserError("RKNN parts decode as they were exported (rknn.tile in the recipe); leave --tile out.")
        if isinstance(self._run, Picked):
            raise UserError("Graphs of fixed shapes decode pictures whole; leave --tile out.")
        if tile < LEAST_TILE or tile % 2:
            raise UserError(f"Tiles of {tile} pixels cannot be; give {LEAST_TILE} or more, an even number.")
        return in_tiles(self._run.outputs, self._host.decoder, self._host.tiles, tile)
