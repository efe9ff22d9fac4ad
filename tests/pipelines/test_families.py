"""Which classes of diffusers make images from text alone, on signatures like theirs."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import pytest

from edgepress.common.errors import UserError
from edgepress.pipelines.families import find_family, makes_images_from_text


@dataclass
class ToyOutput:
    images: Any


class TextToImage:
    def __init__(self, transformer: Any) -> None: ...

    def __call__(self, prompt: Any = None, image: Any = None) -> ToyOutput: ...


class NeedsEmbeddings(TextToImage):
    def __call__(self, prompt: Any, image_embeds: Any) -> ToyOutput: ...  # type: ignore[override]


class Videos(TextToImage):
    def __call__(self, prompt: Any = None, num_frames: int = 16) -> ToyOutput: ...  # type: ignore[override]


class Objects(TextToImage):
    def __call__(self, prompt: Any = None, frame_size: int = 64) -> ToyOutput: ...  # type: ignore[override]


def test_a_class_with_an_optional_image_makes_images_from_text() -> None:
    assert makes_images_from_text(TextToImage)


@pytest.mark.parametrize("cls", [NeedsEmbeddings, Videos, Objects])
def test_what_needs_more_than_a_prompt_or_makes_something_else_does_not(cls: type) -> None:
    assert not makes_images_from_text(cls)


def write_index(folder: Path, pipeline_class: str, **entries: list[None] | None) -> None:
    """Writes a model_index.json with every component that a class needs."""
    needed = inspect.signature(getattr(diffusers, pipeline_class)).parameters
    index: dict[str, Any] = {name: ["diffusers", "AutoencoderKL"] for name in needed} | entries
    (folder / "model_index.json").write_text(json.dumps({"_class_name": pipeline_class} | index))


@pytest.mark.parametrize("entry", [None, [None, None]], ids=["absent", "empty"])
def test_a_gated_text_encoder_that_was_left_out_is_named(entry: list[None] | None, tmp_path: Path) -> None:
    write_index(tmp_path, "HiDreamImagePipeline", text_encoder_4=entry)
    message = r"lists no 'text_encoder_4', a LlamaForCausalLM that a HiDreamImagePipeline needs\. Some are gated"
    with pytest.raises(UserError, match=message):
        find_family(tmp_path)


def test_an_optional_text_encoder_may_be_left_out(tmp_path: Path) -> None:
    write_index(tmp_path, "HunyuanDiTPipeline", text_encoder_2=[None, None])
    with pytest.raises(UserError, match="has no component that denoises images"):  # no weights are here
        find_family(tmp_path)
