"""A tiny CLIP model with random weights: in open_clip's format, in that of transformers, and as a torch module."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save_file

from edgepress.demo.training.clip_model import CONFIG, ClipModel
from edgepress.demo.training.train_clip import save_tokenizer
from edgepress.evaluate.backends.clip import checkpoint_conversion

WEIGHTS = "open_clip_model.safetensors"


class TinyClip(NamedTuple):
    """A folder in open_clip's format, and the same model as a torch module."""

    folder: Path
    model: ClipModel


def make_config(vocabulary_size: int) -> dict[str, Any]:
    config: dict[str, Any] = copy.deepcopy(CONFIG)
    config["model_cfg"]["embed_dim"] = 24
    config["model_cfg"]["vision_cfg"] |= {"image_size": 64, "layers": 2, "width": 32, "head_width": 16}
    config["model_cfg"]["text_cfg"] |= {"layers": 2, "width": 48, "heads": 3, "vocab_size": vocabulary_size}
    return config


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> TinyClip:
    folder = tmp_path_factory.mktemp("clip") / "someone" / "small"
    folder.mkdir(parents=True)
    config = make_config(save_tokenizer(folder))
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = ClipModel(**{**config["model_cfg"], "text_cfg": _remove_tokenizer(config)}).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # initial norms (1) and biases (0) would hide swapped tensors
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / WEIGHTS)
    return TinyClip(folder, model)


@pytest.fixture(scope="session")
def transformers_folder(tiny_clip: TinyClip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, saved by transformers."""
    from safetensors.torch import load_file
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    folder = tmp_path_factory.mktemp("saved") / "clip"
    config = json.loads((tiny_clip.folder / "open_clip_config.json").read_text())
    model = CLIPModel(CLIPConfig(**checkpoint_conversion.convert_model_config(config["model_cfg"])))
    model.load_state_dict(checkpoint_conversion.convert_state_dict(load_file(tiny_clip.folder / WEIGHTS)))
    model.save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": 64},
        crop_size={"height": 64, "width": 64},
        image_mean=config["preprocess_cfg"]["mean"],
        image_std=config["preprocess_cfg"]["std"],
    ).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_clip.folder / name, folder)
    return folder


@pytest.fixture
def copied_folder(tiny_clip: TinyClip, tmp_path: Path) -> Path:
    """A copy of the folder in open_clip's format, for tests that change it."""
    return Path(shutil.copytree(tiny_clip.folder, tmp_path / "copy"))


def _remove_tokenizer(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config["model_cfg"]["text_cfg"].items() if key != "hf_tokenizer_name"}
