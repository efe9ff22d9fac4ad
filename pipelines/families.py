"""Finds the family of a pipeline: what is known of its class, or else what its classes tell of themselves.

A class that no family in `models` describes can be quantized all the same: its denoisers and text encoders are
recognized by what their `forward` takes. Only exporting and what a description adds, such as folded scales, need one.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..common.articles import add_article
from ..common.errors import UserError
from ..common.requirements import reject_failed_import
from ..models.base.family import Component, Family, Role
from ..models.registry import load_families
from ..storage.files import read_json_object
from ..storage.layout import MODEL_INDEX
from ..storage.weight_files import find_weight_folders
from .empty_modules import resolve_class
from .hub import read_pipeline_class
from .required_packages import check_required_packages, is_placeholder

TIMESTEP_NAMES = frozenset({"t", "timestep", "timesteps", "timestep_ratio", "time_step"})
# What a call takes that starts from an image, and components that steer by one.
IMAGE_PARAMETERS = frozenset({"strength", "mask_image", "control_image", "image_embeddings", "gligen_phrases"})
IMAGE_COMPONENTS = re.compile("controlnet|adapter|depth_estimator|low_res|image_embedder")
# Classes whose call has an optional image without which it fails.
IMAGE_CLASSES = re.compile("Edit|Refiner|Upscale|SuperResolution|InstructPix2Pix|Kontext|Fill|Layered|Decoder|Img2Img")
IMAGE_NAMES = (
    "image", "images", "image_embeds", "control_image", "mask_image", "input_images", "pose_images", "video",
)  # fmt: skip
FRAME_PARAMETERS = frozenset({"num_frames", "frame_size"})  # of videos, and of views of an object


def find_family(folder: Path) -> Family:
    """Finds the family of a pipeline folder.

    Returns:
        The description in `models`, or one that has been derived from the classes of the pipeline's components, which
        has components and no graphs.

    Raises:
        UserError: Neither edgepress nor the installed diffusers knows the class, or it makes no images from text.
    """
    pipeline_class = read_pipeline_class(folder)
    described = load_families().get(pipeline_class)
    return described or _derive_family(folder, pipeline_class)


def is_described(pipeline_class: str) -> bool:
    """Whether a family in `models` describes a pipeline class."""
    return pipeline_class in load_families()


def makes_images_from_text(cls: type) -> bool:
    """Whether a pipeline of diffusers makes images from a prompt and nothing else.

    Args:
        cls: A class of diffusers.
    """
    parameters = inspect.signature(cls.__call__).parameters
    components = inspect.signature(cls).parameters
    needed = [
        name for name in IMAGE_NAMES if name in parameters and parameters[name].default is inspect.Parameter.empty
    ]
    takes_image = needed or IMAGE_PARAMETERS & parameters.keys() or any(map(IMAGE_COMPONENTS.search, components))
    return (
        "prompt" in parameters
        and not FRAME_PARAMETERS & parameters.keys()
        and not takes_image
        and not IMAGE_CLASSES.search(cls.__name__)
        and _returns_images(cls)
    )


def _returns_images(cls: type) -> bool:
    """Whether the type that a pipeline returns, by annotation or else among what its module imports, has images."""
    returned = str(inspect.signature(cls.__call__).return_annotation)
    outputs = {name: value for name, value in vars(sys.modules[cls.__module__]).items() if name.endswith("Output")}
    annotated = [value for name, value in outputs.items() if name in returned]
    fields = {field for value in annotated or outputs.values() for field in getattr(value, "__dataclass_fields__", ())}
    return bool(fields & {"image", "images"})


def find_role(cls: type) -> Role:
    """Returns what components of a class do, by the parameters of `forward`."""
    from torch import nn

    if not issubclass(cls, nn.Module) or hasattr(cls, "decode"):
        return "other"
    names = inspect.signature(cls.forward).parameters.keys()
    if names & TIMESTEP_NAMES:
        return "denoiser"
    return "text_encoder" if "input_ids" in names else "other"


def _derive_family(folder: Path, pipeline_class: str) -> Family:
    index = read_json_object(folder / MODEL_INDEX)
    cls = _resolve_pipeline_class(folder, pipeline_class, index)
    if not is_placeholder(cls) and not makes_images_from_text(cls):
        raise UserError(
            f"{folder} is {add_article(pipeline_class)}, which does not make images from text alone. Give a "
            "text-to-image pipeline."
        )
    check_required_packages(folder)
    _require_components(folder, cls, index)
    components = []
    for name in (path.name for path in find_weight_folders(folder)):
        library, class_name = index[name]
        try:
            role = find_role(resolve_class(library, class_name))
        except (AttributeError, ImportError) as error:
            if library in ("diffusers", "transformers"):
                reject_failed_import(error)
            role = "other"  # a class of the model's repository, or of a library that diffusers would name too
        if role != "other":
            components.append(Component(name, class_name, role=role))
    denoisers = [component.name for component in components if component.role == "denoiser"]
    if not denoisers:
        raise UserError(f"{folder} has no component that denoises images. Give a text-to-image pipeline of diffusers.")
    return Family(pipeline_class, denoisers[0], tuple(components))


def _require_components(folder: Path, cls: Any, index: Mapping[str, Any]) -> None:
    """Checks that model_index.json lists what the pipeline's class needs.

    Raises:
        UserError: It lacks a component, or a text encoder is empty there, as where a gated one was left out.
    """
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.default is not inspect.Parameter.empty or name in cls._optional_components:
            continue
        entry = index.get(name)
        if entry is None or (entry == [None, None] and name.startswith("text_encoder")):
            component = getattr(parameter.annotation, "__name__", "component")
            raise UserError(
                f"{folder / MODEL_INDEX} lists no {name!r}, {add_article(component)} that {add_article(cls.__name__)} "
                f"needs. Some are gated and not part of the model: save it with save_pretrained() in {folder / name}, "
                f"with access where it is gated, and list it in {MODEL_INDEX}."
            )


def _resolve_pipeline_class(folder: Path, pipeline_class: str, index: Mapping[str, Any]) -> type:
    """Returns a pipeline class of diffusers, or its placeholder where a package is missing that it needs.

    Raises:
        UserError: The installed release does not have it.
    """
    import diffusers

    cls = getattr(diffusers, pipeline_class, None)
    if isinstance(cls, type) and (issubclass(cls, diffusers.DiffusionPipeline) or is_placeholder(cls)):
        return cls
    saved = index.get("_diffusers_version")
    release = f"; the pipeline was saved with diffusers {saved}" if isinstance(saved, str) else ""
    raise UserError(
        f"{folder / MODEL_INDEX} names the pipeline class {pipeline_class!r}, which diffusers {diffusers.__version__} "
        f"does not have{release}. Install a release that has it, or choose another pipeline."
    )
