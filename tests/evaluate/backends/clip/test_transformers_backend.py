"""CLIP models loaded with transformers embed like a plain torch module, and unsuitable weights are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from edgepress.common.errors import UserError
from edgepress.evaluate.backends.clip.encoders import ClipEncoders
from edgepress.evaluate.backends.clip.spec import parse_clip_spec
from edgepress.evaluate.backends.clip.transformers_backend import load, load_open_clip_folder
from edgepress.evaluate.images.types import ImageArray

if TYPE_CHECKING:
    from .conftest import TinyClip

TEXTS = ("a plain white wall, large red letters", "白墙红字：“花园”", "")
WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture(scope="module")
def image() -> ImageArray:
    """An image of the size of the model's input, which is not resized."""
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def encode_text(encoders: ClipEncoders, text: str) -> torch.Tensor:
    assert encoders.tokenize
    return encoders.encode_text(encoders.tokenize(text, encoders.context_length))


def test_embeddings_equal_those_of_the_torch_module(tiny_clip: TinyClip, image: ImageArray) -> None:
    encoders = load_open_clip_folder(parse_clip_spec(f"local-dir:{tiny_clip.folder}"))
    assert encoders.tokenize
    pixels = torch.tensor(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        expected = tiny_clip.model.encode_image(pixels)[0]
        assert torch.cosine_similarity(encoders.encode_image(image), expected, dim=0) == pytest.approx(1, abs=1e-5)
        for text in TEXTS:
            expected = tiny_clip.model.encode_text(encoders.tokenize(text, encoders.context_length))[0]
            assert torch.cosine_similarity(encode_text(encoders, text), expected, dim=0) == pytest.approx(1, abs=1e-5)


def test_folders_of_both_libraries_have_equal_embeddings(
    tiny_clip: TinyClip, transformers_folder: Path, image: ImageArray
) -> None:
    from_open_clip, from_transformers = (
        load_open_clip_folder(parse_clip_spec(f"local-dir:{tiny_clip.folder}")),
        load(parse_clip_spec(f"transformers:{transformers_folder}")),
    )
    torch.testing.assert_close(from_open_clip.encode_image(image), from_transformers.encode_image(image))
    for text in TEXTS:
        torch.testing.assert_close(encode_text(from_open_clip, text), encode_text(from_transformers, text))


def test_text_embedding_does_not_depend_on_the_padding(tiny_clip: TinyClip) -> None:
    encoders = load_open_clip_folder(parse_clip_spec(f"local-dir:{tiny_clip.folder}"))
    assert encoders.tokenize
    tokens = encoders.tokenize(TEXTS[0], encoders.context_length)
    other_padding = tokens.clone()
    other_padding[0, int(tokens.argmax()) + 1 :] = 7
    torch.testing.assert_close(encoders.encode_text(tokens), encoders.encode_text(other_padding))


def test_activation_follows_the_configuration(copied_folder: Path, tiny_clip: TinyClip, image: ImageArray) -> None:
    _edit_config(copied_folder, "model_cfg", quick_gelu=True)
    quick_gelu, gelu = (
        load_open_clip_folder(parse_clip_spec(f"local-dir:{folder}")) for folder in (copied_folder, tiny_clip.folder)
    )
    assert not torch.allclose(quick_gelu.encode_image(image), gelu.encode_image(image), atol=1e-4)


def test_images_are_resized_and_center_cropped(tiny_clip: TinyClip) -> None:
    encoders = load_open_clip_folder(parse_clip_spec(f"local-dir:{tiny_clip.folder}"))
    wide = np.zeros((50, 130, 3), np.uint8)
    wide[:, 40:90] = 255  # the central square
    square = np.full((50, 50, 3), 255, np.uint8)
    torch.testing.assert_close(encoders.encode_image(wide), encoders.encode_image(square), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("name", ["visual.proj", "text_projection", "visual.transformer.resblocks.1.ln_1.bias"])
def test_missing_weights_are_refused(copied_folder: Path, name: str) -> None:
    weights = load_file(copied_folder / WEIGHTS)
    del weights[name]
    save_file(weights, copied_folder / WEIGHTS)
    with pytest.raises(UserError, match="lacks weights"):
        load_open_clip_folder(parse_clip_spec(f"local-dir:{copied_folder}"))


def test_missing_weights_of_a_transformers_folder_are_refused(transformers_folder: Path, tmp_path: Path) -> None:
    """transformers itself would only report them."""
    folder = Path(shutil.copytree(transformers_folder, tmp_path / "broken"))
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks weights \(visual_projection\.weight\)"):
        load(parse_clip_spec(f"transformers:{folder}"))


def test_weights_of_another_architecture_are_refused(copied_folder: Path) -> None:
    weights = load_file(copied_folder / WEIGHTS)
    weights["visual.proj"] = weights["visual.proj"][:, :5].contiguous()
    save_file(weights, copied_folder / WEIGHTS)
    with pytest.raises(UserError, match=r"does not fit the architecture .*visual_projection"):
        load_open_clip_folder(parse_clip_spec(f"local-dir:{copied_folder}"))


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"width": 33}, "describes no valid CLIP model .*not a multiple"),
        ({"layers": 5}, "lacks weights"),
        ({"image_size": 32}, "does not fit the architecture"),
        ({"head_width": 0}, "describes no valid CLIP model"),
    ],
)
def test_configuration_of_another_architecture_is_refused(
    copied_folder: Path, keys: dict[str, object], match: str
) -> None:
    _edit_config(copied_folder, "model_cfg", "vision_cfg", **keys)
    with pytest.raises(UserError, match=match):
        load_open_clip_folder(parse_clip_spec(f"local-dir:{copied_folder}"))


def test_corrupt_file_is_reported(copied_folder: Path, transformers_folder: Path, tmp_path: Path) -> None:
    (copied_folder / WEIGHTS).write_bytes(b"not weights")
    with pytest.raises(UserError, match="is not a readable safetensors file"):
        load_open_clip_folder(parse_clip_spec(f"local-dir:{copied_folder}"))
    folder = Path(shutil.copytree(transformers_folder, tmp_path / "corrupt"))
    (folder / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(UserError, match="cannot be loaded"):
        load(parse_clip_spec(f"transformers:{folder}"))


@pytest.mark.parametrize(
    ("section", "keys", "match"),
    [
        (("model_cfg", "vision_cfg"), {"timm_model_name": "vit"}, "timm_model_name"),
        (("model_cfg", "vision_cfg"), {"layers": [3, 4, 6, 3]}, "convolutional"),
        (("model_cfg", "text_cfg"), {"hf_model_name": "bert"}, "hf_model_name"),
        (("model_cfg",), {"custom_text": True}, "custom_text"),
    ],
)
def test_features_of_open_clip_require_open_clip(
    copied_folder: Path, section: tuple[str, ...], keys: dict[str, object], match: str
) -> None:
    _edit_config(copied_folder, *section, **keys)
    with pytest.raises(UserError, match=f"{match}.*install open-clip-torch"):
        load_open_clip_folder(parse_clip_spec(f"local-dir:{copied_folder}"))


def test_other_model_type_is_refused(transformers_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((transformers_folder / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    with pytest.raises(UserError, match="type 'siglip'"):
        load(parse_clip_spec(f"transformers:{tmp_path}"))
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        load(parse_clip_spec(f"transformers:{tmp_path}"))


def test_folder_without_tokenizer_cannot_tokenize(copied_folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (copied_folder / name).unlink()
    assert load_open_clip_folder(parse_clip_spec(f"local-dir:{copied_folder}")).tokenize is None


def _edit_config(folder: Path, *section: str, **keys: object) -> None:
    """Sets keys in a section of open_clip_config.json."""
    file = folder / "open_clip_config.json"
    config = current = json.loads(file.read_text())
    for name in section:
        current = current[name]
    current |= keys
    file.write_text(json.dumps(config))
