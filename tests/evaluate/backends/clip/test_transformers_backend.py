"""transformers' CLIP on open_clip's weights embeds as a plain model does; what would be random or wrong is refused."""

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
    from .conftest import Plain

TEXTS = ("a plain white wall, large red letters", "白墙红字：“花园”", "")
WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture(scope="module")
def picture() -> ImageArray:
    """As large as the model wants it, so that nothing is resized."""
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def read(towers: ClipEncoders, text: str) -> torch.Tensor:
    assert towers.tokenize
    return towers.encode_text(towers.tokenize(text, towers.context_length))


def test_pictures_and_texts_are_embedded_as_the_plain_model_does(plain: Plain, picture: ImageArray) -> None:
    towers = load_open_clip_folder(parse_clip_spec(f"local-dir:{plain.folder}"))
    assert towers.tokenize
    pixels = torch.tensor(picture).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        expected = plain.model.encode_image(pixels)[0]
        assert torch.cosine_similarity(towers.encode_image(picture), expected, dim=0) == pytest.approx(1, abs=1e-5)
        for text in TEXTS:
            expected = plain.model.encode_text(towers.tokenize(text, towers.context_length))[0]
            assert torch.cosine_similarity(read(towers, text), expected, dim=0) == pytest.approx(1, abs=1e-5)


def test_a_folder_that_transformers_saved_gives_the_same(plain: Plain, saved: Path, picture: ImageArray) -> None:
    one, other = (
        load_open_clip_folder(parse_clip_spec(f"local-dir:{plain.folder}")),
        load(parse_clip_spec(f"transformers:{saved}")),
    )
    torch.testing.assert_close(one.encode_image(picture), other.encode_image(picture))
    for text in TEXTS:
        torch.testing.assert_close(read(one, text), read(other, text))


def test_the_end_token_counts_and_not_the_padding(plain: Plain) -> None:
    towers = load_open_clip_folder(parse_clip_spec(f"local-dir:{plain.folder}"))
    assert towers.tokenize
    short = towers.tokenize(TEXTS[0], towers.context_length)
    other = short.clone()
    other[0, int(short.argmax()) + 1 :] = 7
    torch.testing.assert_close(towers.encode_text(short), towers.encode_text(other))


def test_the_configuration_decides_the_activation(changed: Path, plain: Plain, picture: ImageArray) -> None:
    _edit(changed, "model_cfg", quick_gelu=True)
    quick, plainly = (
        load_open_clip_folder(parse_clip_spec(f"local-dir:{folder}")) for folder in (changed, plain.folder)
    )
    assert not torch.allclose(quick.encode_image(picture), plainly.encode_image(picture), atol=1e-4)


def test_pictures_of_any_size_are_taken(plain: Plain) -> None:
    towers = load_open_clip_folder(parse_clip_spec(f"local-dir:{plain.folder}"))
    wide = np.zeros((50, 130, 3), np.uint8)
    wide[:, 40:90] = 255  # the middle square
    square = np.full((50, 50, 3), 255, np.uint8)
    torch.testing.assert_close(towers.encode_image(wide), towers.encode_image(square), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("name", ["visual.proj", "text_projection", "visual.transformer.resblocks.1.ln_1.bias"])
def test_weights_that_are_missing_are_never_drawn(changed: Path, name: str) -> None:
    weights = load_file(changed / WEIGHTS)
    del weights[name]
    save_file(weights, changed / WEIGHTS)
    with pytest.raises(UserError, match="lacks weights"):
        load_open_clip_folder(parse_clip_spec(f"local-dir:{changed}"))


def test_weights_that_are_missing_are_never_drawn_by_transformers(saved: Path, tmp_path: Path) -> None:
    """It would only report them."""
    folder = Path(shutil.copytree(saved, tmp_path / "broken"))
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks weights \(visual_projection\.weight\)"):
        load(parse_clip_spec(f"transformers:{folder}"))


def test_weights_of_another_architecture_are_refused(changed: Path) -> None:
    weights = load_file(changed / WEIGHTS)
    weights["visual.proj"] = weights["visual.proj"][:, :5].contiguous()
    save_file(weights, changed / WEIGHTS)
    with pytest.raises(UserError, match=r"does not fit the architecture .*visual_projection"):
        load_open_clip_folder(parse_clip_spec(f"local-dir:{changed}"))


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ({"width": 33}, "describes no CLIP that can be built .*not a multiple"),
        ({"layers": 5}, "lacks weights"),
        ({"image_size": 32}, "does not fit the architecture"),
        ({"head_width": 0}, "describes no CLIP that can be built"),
    ],
)
def test_a_configuration_of_another_architecture_is_refused(changed: Path, keys: dict[str, object], match: str) -> None:
    _edit(changed, "model_cfg", "vision_cfg", **keys)
    with pytest.raises(UserError, match=match):
        load_open_clip_folder(parse_clip_spec(f"local-dir:{changed}"))


def test_a_damaged_file_is_said_to_be(changed: Path, saved: Path, tmp_path: Path) -> None:
    (changed / WEIGHTS).write_bytes(b"not weights")
    with pytest.raises(UserError, match="no readable safetensors"):
        load_open_clip_folder(parse_clip_spec(f"local-dir:{changed}"))
    folder = Path(shutil.copytree(saved, tmp_path / "damaged"))
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
        (("preprocess_cfg",), {"resize_mode": "longest"}, "resize_mode: longest"),
        (("preprocess_cfg",), {"interpolation": "random"}, "interpolation: random"),
    ],
)
def test_what_open_clip_alone_knows_needs_it(
    changed: Path, section: tuple[str, ...], keys: dict[str, object], match: str
) -> None:
    _edit(changed, *section, **keys)
    with pytest.raises(UserError, match=f"{match}.*install open-clip-torch"):
        load_open_clip_folder(parse_clip_spec(f"local-dir:{changed}"))


def test_another_kind_of_model_is_refused(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((saved / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text('{"model_type": "siglip"}')
    with pytest.raises(UserError, match="type 'siglip'"):
        load(parse_clip_spec(f"transformers:{tmp_path}"))
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        load(parse_clip_spec(f"transformers:{tmp_path}"))


def test_a_folder_without_a_tokenizer_reads_no_text(changed: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (changed / name).unlink()
    assert load_open_clip_folder(parse_clip_spec(f"local-dir:{changed}")).tokenize is None


def _edit(folder: Path, *section: str, **keys: object) -> None:
    """Sets keys of a section of open_clip's configuration."""
    file = folder / "open_clip_config.json"
    settings = part = json.loads(file.read_text())
    for name in section:
        part = part[name]
    part |= keys
    file.write_text(json.dumps(settings))
