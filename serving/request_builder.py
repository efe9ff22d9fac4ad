"""Makes requests for images of bodies: templates, presets and defaults are applied, and limits are checked."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image

from ..common.errors import UserError
from ..common.suggest import suggest_name
from ..runtime.generation_request import DEFAULT_STRENGTH, GenerationRequest
from ..storage.pipeline_config import PresetConfig
from .bodies import EditsBody, GenerateBody, ImagesBody
from .errors import ApiError
from .images import ImageRequest
from .settings import Limits
from .template_store import TemplateStore, fill_template

RANDOM_SEEDS = 2**32  # the noise depends on the low 32 bits of a seed
FAST, QUALITY = "fast", "quality"  # presets that OpenAI's `quality` stands for
NO_GUIDANCE = "The negative prompt has no effect without guidance. Set guidance, such as 4."
NO_IMAGE = "The strength has no effect without an image to start from. Send an image, or leave strength out."
NO_LOSS = "The quality of compression has no effect on PNG, which loses nothing. Choose JPEG or WebP."
FAST_QUALITIES = ("low",)


@dataclass(frozen=True)
class RequestBuilder:
    """Makes requests for images.

    Attributes:
        check: Raises UserError for an image that the pipeline cannot generate.
        image_sizes: Heights and widths of the images that the pipeline generates; empty for any size.
        size_multiple: Number of pixels that sides are multiples of.
        default_size: Height and width in pixels of images whose size is not given.
        limits: What the server accepts.
        templates: The prompt templates.
        presets: Steps and sizes by name.
        takes_images: Whether images can start from another one.
    """

    check: Callable[[GenerationRequest], None]
    image_sizes: Sequence[tuple[int, int]]
    size_multiple: int
    default_size: tuple[int, int]
    limits: Limits
    templates: TemplateStore
    presets: Mapping[str, PresetConfig]
    takes_images: bool = False

    @property
    def max_side(self) -> int:
        """Largest height and width in pixels that an image may have."""
        preset_sides = [side for preset in self.presets.values() for side in preset.size or ()]
        limit = self.limits.max_side or max(*self.default_size, *preset_sides)
        return max(limit // self.size_multiple, 1) * self.size_multiple

    @property
    def default_steps(self) -> int:
        """Number of denoising steps of a request that gives none."""
        return self._limit_steps(self.presets.get(QUALITY))

    def list_sides(self) -> tuple[list[int], list[int]]:
        """The heights and the widths that an image may have, in pixels."""
        if self.image_sizes:
            heights, widths = zip(*self.image_sizes, strict=True)
            return sorted({*heights}), sorted({*widths})
        multiples = list(range(self.size_multiple, self.max_side + 1, self.size_multiple))
        return multiples, multiples

    def build(self, body: GenerateBody, image: Image | None = None) -> ImageRequest:
        """Makes the request of a body.

        Args:
            body: The body, whose image was decoded.
            image: That image, to start from.

        Raises:
            ApiError: A value is unknown, beyond a limit, or of no image that the pipeline can generate.
        """
        preset = self._find_preset(body.preset)
        height, width = self._choose_size(preset, image)
        guidance = (preset.guidance if preset else 0.0) if body.guidance is None else body.guidance
        negative_prompt = body.negative_prompt or ""
        request = GenerationRequest(
            prompt=self._fill(body.template, body.prompt),
            seed=secrets.randbelow(RANDOM_SEEDS) if body.seed is None else body.seed,
            steps=body.steps or self._limit_steps(preset),
            size=(body.height or height, body.width or width),
            guidance=guidance,
            negative_prompt=negative_prompt if guidance else "",
            image=image,
            strength=body.strength or DEFAULT_STRENGTH,
        )
        self._require_valid(request, negative_prompt)
        return ImageRequest(request, body.format, body.quality, _list_warnings(body, guidance, image))

    def build_all(self, body: ImagesBody, image: Image | None = None) -> list[ImageRequest]:
        """Makes the requests of a body in OpenAI's form; see `build`."""
        count = body.n or 1
        if count > self.limits.max_images:
            raise ApiError(422, f"n is {count}: this server generates at most {self.limits.max_images} at once.", "n")
        width, height = (None, None) if body.size in (None, "auto") else map(int, body.size.split("x"))
        name = FAST if body.quality in FAST_QUALITIES else QUALITY
        given = body.output_compression
        compression: dict[str, Any] = {} if given is None else {"quality": max(given, 1)}
        first = self.build(
            GenerateBody.model_construct(
                prompt=body.prompt,
                width=width,
                height=height,
                seed=body.seed,
                steps=body.steps,
                template=body.template,
                preset=name if name in self.presets else None,
                strength=body.strength if isinstance(body, EditsBody) else None,
                format=body.output_format or "png",
                **compression,
            ),
            image,
        )
        return [first.with_seed(first.generation.seed + index) for index in range(count)]

    def _choose_size(self, preset: PresetConfig | None, image: Image | None) -> tuple[int, int]:
        """Height and width of an image if the request gives none.

        That of the image that it starts from, lowered to what the server accepts, or else the preset's or the
        artifact's. Where all sizes are exported ones, images are scaled to those.
        """
        if image is None or self.image_sizes:
            height, width = (preset.size if preset else None) or self.default_size
            return min(height, self.max_side), min(width, self.max_side)
        scale = min(1.0, self.max_side / max(image.size))
        multiple = self.size_multiple
        height, width = (max(int(side * scale) // multiple, 1) * multiple for side in (image.height, image.width))
        return height, width

    def _limit_steps(self, preset: PresetConfig | None) -> int:
        return min(preset.steps if preset else GenerationRequest.steps, self.limits.max_steps)

    def _find_preset(self, name: str | None) -> PresetConfig | None:
        if name is None:
            return self.presets.get(QUALITY)
        if name not in self.presets:
            hint = suggest_name(name, list(self.presets)) if self.presets else "this artifact has none. Leave it out."
            raise ApiError(404, f"Unknown preset '{name}'; {hint}", "preset")
        return self.presets[name]

    def _fill(self, name: str | None, prompt: str) -> str:
        """The prompt, in its template if there is one."""
        if name is not None:
            template = self.templates.get(name)
            if template is None:
                names = [known.name for known in self.templates.list_all()]
                raise ApiError(404, f"Unknown template '{name}'; {suggest_name(name, names)}", "template")
            prompt = fill_template(template.text, prompt)
        return prompt

    def _require_valid(self, request: GenerationRequest, negative_prompt: str) -> None:
        if request.steps > self.limits.max_steps:
            raise ApiError(
                422, f"steps is {request.steps}; the limit is {self.limits.max_steps}. Choose fewer.", "steps"
            )
        height, width = request.size or self.default_size
        if max(height, width) > self.max_side:
            raise ApiError(
                422,
                f"The size is {width}x{height}; this server's limit is {self.max_side}. Choose a smaller one.",
                "width",
            )
        limit = self.limits.max_prompt_characters
        for name, text in (("prompt", request.prompt), ("negative_prompt", negative_prompt)):
            if len(text) > limit:
                raise ApiError(422, f"The {name} has {len(text)} characters; the limit is {limit}. Shorten it.", name)
        try:
            self.check(request)
        except UserError as error:
            raise ApiError(422, str(error)) from error


def _list_warnings(body: GenerateBody, guidance: float, image: Image | None) -> tuple[str, ...]:
    """What the client should know about fields that it sent and that have no effect."""
    has_no_effect = {
        NO_GUIDANCE: body.negative_prompt and not guidance,
        NO_IMAGE: body.strength is not None and image is None,
        NO_LOSS: "quality" in body.model_fields_set and body.format == "png",
    }
    return tuple(warning for warning, applies in has_no_effect.items() if applies)
