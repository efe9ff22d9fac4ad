"""Generates an image of each prompt of a file into a folder, and goes on where an earlier run stopped."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from ..common.errors import UserError
from ..common.progress import Progress, no_progress
from ..prompts.prompt import Prompt, prompt_seed, require_guidance
from ..storage.atomic_file import atomic_write
from ..storage.files import hash_file
from ..storage.outdated_results import digest_published
from ..storage.preflight import check_results_folder
from ..storage.recognition import is_artifact
from .batch_record import read_batch_record, write_batch_record
from .generation_request import GenerationRequest
from .image_file import DEFAULT_QUALITY, ImageFormat, encode_image, read_image_file
from .image_metadata import Detail, ImageOrigin, build_save_options, read_origin
from .pipeline import ImagePipeline
from .verification import digest_export

UNRECORDED = ("prompt", "image", "strength")  # of a request: they are recorded for each prompt
MAX_SHOWN = 4  # differences in a message
GENERATING = "generating"  # stage of progress
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BatchSettings:
    """How the images of a batch are generated.

    Attributes:
        request: Settings of every image; its prompt is ignored, and a prompt's own negative prompt, guidance, image and
            strength replace its.
        format: Format of the files.
        quality: 1 to 100, for JPEG and WebP.
        provenance: What the files say of their prompts.
    """

    request: GenerationRequest
    format: ImageFormat = "png"
    quality: int = DEFAULT_QUALITY
    provenance: Detail = "hash"


@dataclass(frozen=True)
class BatchResult:
    """What a batch led to.

    Attributes:
        files: The images, in the order of the prompts.
        num_generated: Images that this run generated; earlier runs generated the others.
    """

    files: tuple[Path, ...]
    num_generated: int


def generate_batch(
    pipeline: ImagePipeline,
    prompts: Sequence[Prompt],
    settings: BatchSettings,
    folder: Path,
    restart: bool = False,
    progress: Progress = no_progress,
) -> BatchResult:
    """Generates an image of each prompt, named by the prompt's id.

    The noise depends on the prompt's id and the seed only, as in an evaluation: prompts may be added to a file. An
    image of an earlier run that is damaged, or records another origin or size, is generated again, with a warning.

    Args:
        pipeline: The artifact.
        prompts: The prompts.
        settings: How images are generated.
        folder: Folder of the images, which is created.
        restart: Whether to generate all images again, also where the folder holds images of other settings.
        progress: Reports the stage `generating` in images.

    Raises:
        UserError: A prompt cannot be generated, or the folder holds images of other settings or cannot be written.
        KeyboardInterrupt: Ctrl-C, with what is finished.
    """
    require_guidance(prompts, pipeline.takes_guidance, pipeline.pipeline_class)
    unguided = [p for p in prompts if p.negative_prompt and not p.choose_guidance(settings.request.guidance)]
    if unguided:
        logger.warning(
            "%d prompts, such as %r, have a negative prompt that has no effect: nothing is guided away from it.",
            len(unguided),
            unguided[0].id,
        )
    digest = digest_published(pipeline.folder) or ""
    quality = None if settings.format == "png" else settings.quality
    images = []
    for prompt in prompts:  # whose images to start from are not held in memory
        request = _make_request(prompt, settings.request)
        pipeline.check_request(request)
        origin = ImageOrigin.from_request(request, pipeline.pipeline_class, digest, quality=quality)
        size = pipeline.resolve_request_size(request)
        images.append(_BatchImage(prompt, folder / f"{prompt.id}.{settings.format}", origin, size))
    if is_artifact(folder):
        raise UserError(f"{folder} is an artifact: images do not belong there. Choose another --output.")
    check_results_folder(folder)
    files = [image.file for image in images]
    texts = {image.prompt.id: image.describe() for image in images}
    record = _describe(pipeline, settings)
    texts, hashes = _claim(folder, record, texts, files, restart)
    missing = [image for image in images if restart or _is_unusable(image, settings, hashes.get(image.file.name, ""))]
    intact = [file for file in files if file not in {image.file for image in missing}]
    hashes |= {file.name: hash_file(file) for file in intact if file.name not in hashes}  # of a batch that was killed
    finished = len(files) - len(missing)
    progress(GENERATING, finished, len(files))
    try:
        for image in missing:
            content = _encode(pipeline, image, settings)
            atomic_write(image.file, lambda temporary, content=content: temporary.write_bytes(content))  # type: ignore[misc]
            hashes[image.file.name] = hashlib.sha256(content).hexdigest()
            finished += 1
            progress(GENERATING, finished, len(files))
    except KeyboardInterrupt as error:
        hint = "The same command goes on." if not restart else "The same command without --restart goes on."
        raise KeyboardInterrupt(f"Interrupted after {finished} of {len(files)} images. {hint}") from error
    finally:
        write_batch_record(folder, record, texts, hashes)
    return BatchResult(tuple(files), len(missing))


@dataclass(frozen=True)
class _BatchImage:
    """An image of a batch.

    Attributes:
        prompt: Its prompt.
        file: Its file.
        origin: How it is generated, without the engine.
        size: Its height and width in pixels.
    """

    prompt: Prompt
    file: Path
    origin: ImageOrigin
    size: tuple[int, int]

    def describe(self) -> str:
        """What the image depends on besides the settings of the batch."""
        guidance = "" if self.prompt.guidance is None else f" {self.prompt.guidance}"
        start = f" {self.origin.image_sha256} {self.origin.strength}" if self.origin.image_sha256 else ""
        return self.origin.prompt + self.origin.negative_prompt + guidance + start


def _is_unusable(image: _BatchImage, settings: BatchSettings, sha256: str) -> bool:
    """Whether an image must be generated: it was not, or its file is not what was written then, which is logged."""
    if not image.file.exists():
        return True
    problem = _find_problem(image, settings)
    if not problem and sha256 and hash_file(image.file) != sha256:
        problem = "is not the file that this batch wrote"
    if problem:
        logger.warning("%s %s. It is generated again.", image.file, problem)
    return bool(problem)


def _find_problem(expected: _BatchImage, settings: BatchSettings) -> str:
    """What follows the file's name in a sentence; empty if nothing is wrong."""
    try:
        with Image.open(expected.file) as image:
            image.load()
            if image.format != settings.format.upper():
                return f"is no {settings.format.upper()}"
            if (image.height, image.width) != expected.size:
                height, width = expected.size
                return f"has {image.height}x{image.width} pixels instead of {height}x{width}"
            different = [] if settings.provenance == "none" else expected.origin.list_differences(read_origin(image))
    except (OSError, SyntaxError, ValueError):  # as Pillow says that a file is cut off or damaged
        return "is cut off or damaged"
    return f"records another {' and '.join(different)} than this batch has" if different else ""


def _encode(pipeline: ImagePipeline, image: _BatchImage, settings: BatchSettings) -> bytes:
    """Generates an image, and returns the content of its file."""
    pixels = pipeline.generate(_make_request(image.prompt, settings.request))
    origin = replace(image.origin, engine=pipeline.engine)
    options = build_save_options(settings.format.upper(), origin, settings.provenance)
    return encode_image(pixels, settings.format, settings.quality, options)


def _make_request(prompt: Prompt, request: GenerationRequest) -> GenerationRequest:
    """The request of a prompt, with the image that it starts from."""
    guidance = prompt.choose_guidance(request.guidance)
    image = request.image
    if prompt.image is not None:
        image = read_image_file(Path(prompt.image), f"Correct 'image' of the prompt {prompt.id!r}.")
    if image is None and prompt.strength is not None:
        raise UserError(
            f"The prompt {prompt.id!r} has a strength and no image to start from. Give it an 'image', or remove "
            "'strength'."
        )
    return replace(
        request,
        prompt=prompt.prompt,
        seed=prompt_seed(prompt.id, request.seed),
        guidance=guidance,
        image=image,
        strength=request.strength if prompt.strength is None else prompt.strength,
        negative_prompt=prompt.choose_negative_prompt(request.negative_prompt) if guidance else "",
    )


def _describe(pipeline: ImagePipeline, settings: BatchSettings) -> dict[str, Any]:
    """What the images depend on besides their prompts, as JSON."""
    request = asdict(settings.request)
    for name in UNRECORDED:
        del request[name]
    if not request["step_cache"]:  # as in records of earlier releases
        del request["step_cache"]
    size = list(pipeline.resolve_size(settings.request.size))
    quality = None if settings.format == "png" else settings.quality
    return {
        **request,
        "size": size,
        "format": settings.format,
        "quality": quality,
        "provenance": settings.provenance,
        "artifact_sha256": digest_export(pipeline.folder),
    }


def _claim(
    folder: Path, record: dict[str, Any], texts: dict[str, str], files: Sequence[Path], restart: bool
) -> tuple[dict[str, str], dict[str, str]]:
    """Writes what the images of a folder depend on, unless it is there already.

    Returns:
        The texts of all prompts of the folder by id, and the SHA-256 of the files that earlier runs wrote, by name.

    Raises:
        UserError: The folder holds images of other settings or prompts, or files or folders that no batch generated.
    """
    if blocked := next((file for file in files if file.is_dir()), None):
        raise UserError(f"{blocked} is a folder, and an image would have its name. Move it, or give another --output.")
    previous = None if restart else read_batch_record(folder)
    if previous is None:
        if not restart and (existing := [file for file in files if file.exists()]):
            raise UserError(f"{existing[0]} is no image of a batch. Give another --output, or --restart to replace it.")
        folder.mkdir(parents=True, exist_ok=True)
        write_batch_record(folder, record, texts, {})
        return texts, {}
    settings, previous_texts, hashes = previous
    different = sorted(key for key in {*record, *settings} if record.get(key) != settings.get(key))
    different += [name for name in texts if previous_texts.get(name, texts[name]) != texts[name]]
    if different:
        raise UserError(
            f"{folder} holds images of other settings or prompts ({', '.join(different[:MAX_SHOWN])}). "
            "Give another --output, or --restart to generate all again."
        )
    write_batch_record(folder, record, previous_texts | texts, hashes)
    return previous_texts | texts, hashes
