"""The folder for stock diffusers and auto-round: what the stock classes and configs make of it.

tests/benchmarks/interop opens the folder with auto-round itself.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from helpers.previous_artifact import extract_previous_artifact
from safetensors.torch import load_file
from torch import Tensor, nn

from edgepress.cli.main import main
from edgepress.common.errors import UserError
from edgepress.export.diffusers.exporter import export_diffusers
from edgepress.pipelines.empty_modules import build_empty_module
from edgepress.pipelines.quantized_modules import replace_linears

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny artifact, exported. Its VAE was stored without its encoder."""
    folder = extract_previous_artifact(tmp_path_factory.mktemp("diffusers"))
    export_diffusers(folder, folder)
    return folder


def read_component(folder: Path) -> tuple[dict[str, Tensor], dict[str, object]]:
    return load_file(next(folder.glob("*.safetensors"))), json.loads((folder / "config.json").read_text("utf-8"))


@pytest.mark.parametrize("component", ["transformer", "text_encoder", "vae"])
def test_the_stock_class_finds_every_tensor_and_no_other(artifact: Path, component: str) -> None:
    tensors, config = read_component(artifact / "diffusers" / component)
    library, class_name = json.loads((artifact / "diffusers" / "model_index.json").read_text("utf-8"))[component]
    quantization = config.pop("quantization_config", None)
    model = build_empty_module(library, class_name, config)
    if isinstance(quantization, dict):
        linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
        patterns = quantization["modules_to_not_convert"]
        skipped = [name for name in linears if any(re.search(pattern, name) for pattern in patterns)]
        replace_linears(model, quantization["group_size"], skipped)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    assert {name: tensor.shape for name, tensor in tensors.items()} == expected


@pytest.mark.parametrize("component", ["transformer", "text_encoder"])
def test_packed_tensors_are_those_of_the_artifact(artifact: Path, component: str) -> None:
    tensors, _ = read_component(artifact / "diffusers" / component)
    stored, _ = read_component(artifact / "model" / component)
    packed = [name for name in stored if name.endswith((".qweight", ".qzeros", ".scales")) and "embed" not in name]
    assert packed
    assert all(torch.equal(tensors[name], stored[name]) for name in packed)


def test_embeddings_are_floats_and_unused_blocks_zeros(artifact: Path) -> None:
    tensors, _ = read_component(artifact / "diffusers" / "text_encoder")
    stored, config = read_component(artifact / "model" / "text_encoder")
    values = stored["embed_tokens.codes"] * stored["embed_tokens.scales"].float()
    assert config["dtype"] == "bfloat16"
    assert torch.equal(tensors["embed_tokens.weight"], values.bfloat16())
    unused = {name: tensor for name, tensor in tensors.items() if name.startswith("layers.2.")}
    assert not any(tensor.any() for name, tensor in unused.items() if not name.endswith((".qweight", ".qzeros")))


def test_the_stock_libraries_choose_auto_round(artifact: Path) -> None:
    from diffusers.quantizers.auto import DiffusersAutoQuantizer
    from transformers.quantizers.auto import AutoQuantizationConfig

    _, config = read_component(artifact / "diffusers" / "transformer")
    quantizer = DiffusersAutoQuantizer.from_config(config["quantization_config"])
    assert type(quantizer).__name__ == "AutoRoundQuantizer"
    _, config = read_component(artifact / "diffusers" / "text_encoder")
    stock = AutoQuantizationConfig.from_dict(config["quantization_config"])
    assert (type(stock).__name__, stock.packing_format) == ("AutoRoundConfig", "auto_round:auto_awq")
    assert (stock.bits, stock.group_size, stock.sym) == (4, 32, False)


def test_other_files_are_copied_and_the_readme_names_the_packages(artifact: Path) -> None:
    folder = artifact / "diffusers"
    assert (folder / "tokenizer" / "tokenizer.json").read_bytes() == (
        artifact / "model" / "tokenizer" / "tokenizer.json"
    ).read_bytes()
    assert not (folder / "solutions").exists()
    assert "auto-round-lib" in (folder / "README.md").read_text("utf-8")


def test_a_pipeline_in_floats_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no INT4 weights"):
        export_diffusers(tiny, tmp_path / "out")


def test_what_another_program_wrote_is_left_alone(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "diffusers").mkdir()
    (tmp_path / "diffusers" / "notes.txt").touch()
    arguments = ["export", "diffusers", "--model", str(artifact), "--output", str(tmp_path)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "was not made by edgepress" in result.stderr
    assert [path.name for path in (tmp_path / "diffusers").iterdir()] == ["notes.txt"]
