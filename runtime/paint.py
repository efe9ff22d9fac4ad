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
from .noise import noise
from .prompt import Reader
from .schedule import schedule
from .sessions import CPU, Sessions
from .tiles import in_tiles

LEAST_TILE = 128  # pixels: below it, tiles are mostly overlap


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
        artifact: its folder, or the `onnx` folder in it.
        keep: whether graphs stay in memory between uses, for many pictures; otherwise there is one at a time.
        providers: of ONNX Runtime, in order.

    Raises:
        UserError: nothing that this version can run was exported there.
    """

    def __init__(self, artifact: Path, keep: bool = True, providers: Sequence[str] = CPU) -> None:
        exported = manifest.read(artifact)
        self._scheduler = exported.host["scheduler"]
        self._host: Host = host_of(family_of(exported.family), exported.host)
        self._run: Run = Sessions(exported.graphs, keep, providers)
        longest = exported.host.get("max_prompt_tokens", self._host.max_tokens)
        self._reader = Reader(exported.folder / "tokenizer", self._host.template, longest)

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
        height, width = wish.size or (self._host.native, self._host.native)
        shape = self._host.latent_shape(height, width)
        decode = self._decoder(wish.tile, height // shape[-2])
        steps = schedule(self._scheduler, wish.steps, self._host.tokens(height, width))
        caption = self._read(wish.prompt, progress, tell)
        latents = noise(shape, wish.seed)
        progress("painting", 0, wish.steps)
        for number, timestep in enumerate(steps.timesteps):
            velocity = self._host.velocity(self._run, latents, float(timestep), caption)
            latents = steps.step(latents, velocity, number)
            progress("painting", number + 1, wish.steps)
        progress("decoding", 0, 1)
        picture = self._host.decode(decode, latents)
        progress("decoding", 1, 1)
        return Image.fromarray(picture)

    def _read(self, text: str, progress: Progress, tell: Callable[[str], None]) -> object:
        prompt = self._reader.read(text)
        if prompt.cut:
            tell(prompt.cut)
        progress("reading", 0, 1)
        caption = self._host.encode(self._run, prompt.ids)
        progress("reading", 1, 1)
        return caption

    def _decoder(self, tile: int | None, scale: int) -> Run:
        if tile is None:
            return self._run
        if tile < LEAST_TILE or tile % scale:
            raise UserError(f"Tiles of {tile} pixels cannot be; give {LEAST_TILE} or more, a multiple of {scale}.")
        return in_tiles(self._run, self._host.decoder, tile // scale)
