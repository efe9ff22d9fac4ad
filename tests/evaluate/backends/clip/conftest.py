"""A very small CLIP with random weights, in open_clip's folder and in transformers', and the plain model that it is."""

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


class Plain(NamedTuple):
    """open_clip's folder and the model in plain torch."""

    folder: Path
    model: ClipModel


def settings_of(vocabulary: int) -> dict[str, Any]:
    settings: dict[str, Any] = copy.deepcopy(CONFIG)
    settings["model_cfg"]["embed_dim"] = 24
    settings["model_cfg"]["vision_cfg"] |= {"image_size": 64, "layers": 2, "width": 32, "head_width": 16}
    settings["model_cfg"]["text_cfg"] |= {"layers": 2, "width": 48, "heads": 3, "vocab_size": vocabulary}
    return settings


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Plain:
    folder = tmp_path_factory.mktemp("clip") / "someone" / "small"
    folder.mkdir(parents=True)
    settings = settings_of(save_tokenizer(folder))
    (folder / "open_clip_config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    model = ClipModel(**{**settings["model_cfg"], "text_cfg": _without_tokenizer(settings)}).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # norms and biases are 1 and 0 at first, and would hide a swap
            parameter.add_(0.1 * torch.randn_like(parameter))
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / WEIGHTS)
    return Plain(folder, model)


@pytest.fixture(scope="session")
def saved(plain: Plain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as transformers saves it."""
    from safetensors.torch import load_file
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel

    folder = tmp_path_factory.mktemp("saved") / "clip"
    settings = json.loads((plain.folder / "open_clip_config.json").read_text())
    model = CLIPModel(CLIPConfig(**checkpoint_conversion.convert_model_config(settings["model_cfg"])))
    model.load_state_dict(checkpoint_conversion.convert_state_dict(load_file(plain.folder / WEIGHTS)))
    model.save_pretrained(folder)
    CLIPImageProcessorPil(
        **checkpoint_conversion.convert_processor_config(settings["preprocess_cfg"], 64)
    ).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(plain.folder / name, folder)
    return folder


@pytest.fixture
def changed(plain: Plain, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(plain.folder, tmp_path / "changed"))


def _without_tokenizer(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings["model_cfg"]["text_cfg"].items() if key != "hf_tokenizer_name"}
