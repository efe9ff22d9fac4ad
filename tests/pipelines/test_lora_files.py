"""Which file a LoRA is read from, and how strongly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from edgepress.common.errors import UserError
from edgepress.pipelines.lora_files import LoraScaling, LoraSpec, parse_lora, read_lora


def write_tensors(file: Path, *names: str) -> Path:
    save_file({name: torch.ones(2, 2) for name in names}, file)
    return file


@pytest.mark.parametrize(("suffix", "weight"), [("", 1.0), (":0.5", 0.5), (":-1", -1.0), (":2e-1", 0.2)])
def test_a_weight_follows_the_path(tmp_path: Path, suffix: str, weight: float) -> None:
    file = write_tensors(tmp_path / "style.safetensors", "a")
    assert parse_lora(f"{file}{suffix}") == LoraSpec(file, weight)


def test_a_path_that_ends_like_a_weight_is_a_path(tmp_path: Path) -> None:
    file = write_tensors(tmp_path / "style.safetensors", "a").rename(tmp_path / "style:0.5")
    folder = tmp_path / "loras:2"
    folder.mkdir()
    inside = file.rename(folder / "style.safetensors")
    assert parse_lora(str(folder)) == LoraSpec(inside)
    assert parse_lora(f"{folder}:3") == LoraSpec(inside, 3.0)


def test_a_folder_stands_for_the_file_that_diffusers_or_peft_wrote(tmp_path: Path) -> None:
    write_tensors(tmp_path / "other.safetensors", "a")
    file = write_tensors(tmp_path / "pytorch_lora_weights.safetensors", "a")
    assert parse_lora(str(tmp_path)).file == file


@pytest.mark.parametrize("weight", ["x", "nan", "inf", ""])
def test_a_weight_that_is_no_number_is_named(tmp_path: Path, weight: str) -> None:
    file = write_tensors(tmp_path / "style.safetensors", "a")
    with pytest.raises(UserError, match=rf"{weight!r} is not a finite number"):
        parse_lora(f"{file}:{weight}")


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no LoRA .*nothing\.safetensors"):
        parse_lora(str(tmp_path / "nothing.safetensors"))
    with pytest.raises(UserError, match=r"has no \.safetensors file"):
        parse_lora(str(tmp_path))
    (tmp_path / "style.pt").write_bytes(b"x")
    with pytest.raises(UserError, match="pickled"):
        parse_lora(str(tmp_path / "style.pt"))
    for name in ("a", "b"):
        write_tensors(tmp_path / f"{name}.safetensors", "a")
    with pytest.raises(UserError, match="more than one"):
        parse_lora(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("transformer.a.lora_magnitude_vector", "is a DoRA"),
        ("a.lokr_w1", "is a LoKr"),
        ("lora_unet_a.hada_w1_a", "is a LoHa"),
        ("layers.0.weight", "is not a LoRA"),
    ],
)
def test_other_files_are_refused_by_their_kind(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_lora(write_tensors(tmp_path / "x.safetensors", name))


def test_codes_are_not_read_as_floats(tmp_path: Path) -> None:
    tensors = {f"transformer.a.lora_{side}.weight": torch.ones(2, 2, dtype=torch.int8) for side in "AB"}
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match=r"has transformer\.a\.lora_A\.weight in I8, which is not read\. Use a LoRA in"):
        read_lora(tmp_path / "x.safetensors")


def test_a_corrupt_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"not a safetensors file")
    with pytest.raises(UserError, match=r"x\.safetensors"):
        read_lora(file)


def test_layers_are_scaled_as_peft_documents_it() -> None:
    config = {"lora_alpha": 8, "alpha_pattern": {"to_q": 4, r"layers\.1\.to_k": 2}}
    scaling = LoraScaling.from_config(config, Path("style.safetensors"))
    assert scaling.get_scale("layers.0.to_k", 16) == 0.5
    assert scaling.get_scale("layers.0.to_q", 16) == 0.25
    assert scaling.get_scale("layers.1.to_k", 16) == 0.125
    by_root = LoraScaling.from_config(config | {"use_rslora": True}, Path("style.safetensors"))
    assert by_root.get_scale("a", 16) == 2.0
    assert LoraScaling().get_scale("a", 16) == 1.0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"lora_alpha": "x"}, "its lora_alpha is 'x', not a number"),
        ({"lora_alpha": True}, "its lora_alpha is true, not a number"),
        ({"alpha_pattern": ["to_q"]}, "its alpha_pattern does not give a number"),
        ({"alpha_pattern": {"to_q": None}}, "its alpha_pattern does not give a number"),
        ({"alpha_pattern": {"(": 1}}, r"its alpha_pattern has '\(', which is no regular expression"),
    ],
)
def test_a_config_that_gives_no_scales_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"style\.safetensors: {message}.* Download it again"):
        LoraScaling.from_config(config, Path("style.safetensors"))
