"""The INT4 loader: a quantized component computes what a dense one with the dequantized weights computes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AwqConfig as StockAwqConfig

import edgepress.loading  # noqa: F401  registers the loader
from edgepress.numerics import affine, awq_packing
from edgepress.numerics.int8_rows import dequantize_rows, quantize_rows
from edgepress.pipelines.hf_quantizers import AwqConfig, TransformersAwqConfig
from edgepress.pipelines.quantized_modules import Int4Linear, Int8Embedding

GROUP_SIZE = 64
AWQ_TENSORS = ("qweight", "qzeros", "scales")


def random_inputs(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def make_z_image() -> Any:
    from diffusers import ZImageTransformer2DModel

    torch.manual_seed(0)
    model = ZImageTransformer2DModel(
        dim=384, n_heads=6, n_kv_heads=6, n_layers=1, n_refiner_layers=1, cap_feat_dim=128,
        axes_dims=[16, 24, 24], axes_lens=[256, 64, 64],
    )  # fmt: skip
    return model.eval()


def make_qwen3() -> Any:
    from transformers import Qwen3Config, Qwen3Model

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=64, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=64, attention_bias=True,
    )  # fmt: skip
    model = Qwen3Model(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_()
    return model


def denoise(model: Any) -> Tensor:
    dtype = next(model.parameters()).dtype
    latents, text = random_inputs(16, 1, 8, 8, dtype=dtype), random_inputs(7, 128, dtype=dtype)
    with torch.no_grad():
        sample: Tensor = model([latents], torch.tensor([0.5], dtype=dtype), [text], return_dict=False)[0][0]
    return sample.float()


def encode(model: Any) -> Tensor:
    with torch.no_grad():
        state: Tensor = model(torch.arange(9)[None]).last_hidden_state
    return state.float()


@dataclass(frozen=True)
class ComponentCase:
    """A kind of component: how it is created, run and stored, and what `from_pretrained` calls its dtype."""

    create: Callable[[], Any]
    run: Callable[[Any], Tensor]
    save_config: Callable[[Any, Path], object]
    file: str
    dtype_key: str

    def load(self, folder: Path, dtype: torch.dtype | None = None) -> tuple[Any, dict[str, Any]]:
        """The model by its class's `from_pretrained`, and the loading info, which lists unexpected and missing keys."""
        model, loading_info = type(self.create()).from_pretrained(
            folder, output_loading_info=True, **{self.dtype_key: dtype}
        )
        return model, loading_info


CASES = {
    "diffusers": ComponentCase(
        make_z_image,
        denoise,
        lambda model, folder: model.save_config(folder),
        "diffusion_pytorch_model.safetensors",
        "torch_dtype",
    ),
    "transformers": ComponentCase(
        make_qwen3, encode, lambda model, folder: model.config.save_pretrained(folder), "model.safetensors", "dtype"
    ),
}


class QuantizedComponent:
    """A component on disk with some quantized linear layers, and the equivalent dense model."""

    def __init__(self, case: ComponentCase, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        self.case, self.folder = case, folder
        self.dense = case.create().to(dtype)
        self.packed: dict[str, Tensor] = {}
        unquantized: list[str] = []
        for name, module in self.dense.named_modules():
            if isinstance(module, nn.Linear) and name.startswith("layers.0."):
                weight = affine.quantize(
                    module.weight.data,
                    affine.minmax_qparams(module.weight.data, affine.QuantSpec(group_size=GROUP_SIZE)),
                )
                self.packed |= {f"{name}.{kind}": t for kind, t in awq_packing.pack_awq(weight)._asdict().items()}
                module.weight.data = affine.dequantize(weight)
            elif isinstance(module, nn.Linear):
                unquantized.append(name)
        state = {
            name: tensor.clone()
            for name, tensor in self.dense.state_dict().items()
            if f"{name.removesuffix('weight')}qweight" not in self.packed
        }
        self.dense.float()
        folder.mkdir()
        case.save_config(self.dense, folder)
        save_file(state | self.packed, folder / case.file)
        self.configure(modules_to_not_convert=unquantized)

    def configure(self, **changes: object) -> None:
        """Writes `quantization_config` as `edgepress quantize` does, with changes."""
        path = self.folder / "config.json"
        config = json.loads(path.read_text())
        default = {"quant_method": "awq", "bits": 4, "group_size": GROUP_SIZE, "zero_point": True, "version": "gemm"}
        config["quantization_config"] = default | config.get("quantization_config", {}) | changes
        path.write_text(json.dumps(config))

    def load(self, dtype: torch.dtype | None = None) -> tuple[Any, dict[str, Any]]:
        return self.case.load(self.folder, dtype)


@pytest.fixture(params=list(CASES))
def quantized(request: pytest.FixtureRequest, tmp_path: Path) -> QuantizedComponent:
    return QuantizedComponent(CASES[request.param], tmp_path / "component")


def test_a_quantized_component_computes_what_the_dense_one_computes(quantized: QuantizedComponent) -> None:
    model, loading_info = quantized.load(torch.float32)
    assert not any(loading_info.values()), loading_info
    layers = [name for name, module in model.named_modules() if isinstance(module, Int4Linear)]
    assert layers == list(dict.fromkeys(name.rpartition(".")[0] for name in quantized.packed))
    actual, expected = quantized.case.run(model), quantized.case.run(quantized.dense)
    error = float((actual - expected).abs().max() / expected.abs().max())
    assert error < 1e-5, f"relative error {error}"


def test_a_quantized_component_is_loaded_for_inference(quantized: QuantizedComponent) -> None:
    model, _ = quantized.load(torch.float32)
    assert not model.training
    assert not model.get_submodule(next(iter(quantized.packed)).rpartition(".")[0]).scales.requires_grad


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
def test_quantized_weights_are_bit_exact_in_any_dtype(quantized: QuantizedComponent, dtype: torch.dtype | None) -> None:
    model, loading_info = quantized.load(dtype)
    assert not any(loading_info.values()), loading_info
    state = model.state_dict()
    assert {name: state[name].dtype for name in quantized.packed} == {n: t.dtype for n, t in quantized.packed.items()}
    assert [name for name, tensor in quantized.packed.items() if not torch.equal(state[name], tensor)] == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("file_dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", CASES)
def test_other_weights_are_loaded_in_the_requested_dtype(
    case: str, file_dtype: torch.dtype, dtype: torch.dtype, tmp_path: Path
) -> None:
    model, _ = QuantizedComponent(CASES[case], tmp_path / "component", file_dtype).load(dtype)
    unpacked = {
        name: tensor for name, tensor in model.state_dict().items() if name.rpartition(".")[2] not in AWQ_TENSORS
    }
    assert {name: tensor.dtype for name, tensor in unpacked.items()} == dict.fromkeys(unpacked, dtype)


def test_bfloat16_outputs_equal_those_of_the_dense_component(quantized: QuantizedComponent) -> None:
    model, _ = quantized.load(torch.bfloat16)
    actual, expected = quantized.case.run(model), quantized.case.run(quantized.dense.bfloat16())
    error = float((actual - expected).norm() / expected.norm())
    assert error < 3e-2, f"relative error {error}"


def test_saving_and_loading_again_changes_nothing(quantized: QuantizedComponent, tmp_path: Path) -> None:
    model, _ = quantized.load(torch.bfloat16)
    model.save_pretrained(tmp_path / "again")
    saved = load_file(tmp_path / "again" / quantized.case.file)
    assert [name for name, tensor in quantized.packed.items() if not torch.equal(saved[name], tensor)] == []
    again, loading_info = quantized.case.load(tmp_path / "again", torch.bfloat16)
    assert not any(loading_info.values()), loading_info
    assert torch.equal(quantized.case.run(again), quantized.case.run(model))


@pytest.mark.parametrize("changes", [{"bits": 8}, {"bits": 3}, {"version": "gemv"}, {"version": "nonsense"}])
def test_other_bits_and_layouts_are_rejected(quantized: QuantizedComponent, changes: dict[str, object]) -> None:
    """Codes of another layout can have the same shapes, and would load as noise."""
    quantized.configure(**changes)
    with pytest.raises(ValueError, match=str(next(iter(changes.values())))):
        quantized.load()


@pytest.mark.parametrize("group_size", [32, 128])
def test_a_group_size_that_differs_from_the_file_is_rejected(quantized: QuantizedComponent, group_size: int) -> None:
    quantized.configure(group_size=group_size)
    with pytest.raises((ValueError, RuntimeError), match=r"qzeros|scales|mismatch"):
        quantized.load(torch.bfloat16)


@pytest.mark.parametrize("arguments", [{"bits": 8}, {"version": "gemv"}, {"bits": 2, "version": "GEMV"}])
def test_the_config_rejects_unsupported_formats(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="unsupported AWQ format"):
        AwqConfig(**arguments)


@pytest.mark.filterwarnings("ignore:You passed `quantization_config`")
def test_transformers_config_may_be_given_in_the_call(tmp_path: Path) -> None:
    """So that the same code loads the component with and without edgepress."""
    component = QuantizedComponent(CASES["transformers"], tmp_path / "component")
    model = type(component.dense).from_pretrained(component.folder, quantization_config=StockAwqConfig(backend="gemm"))
    assert isinstance(model.get_submodule("layers.0.mlp.up_proj"), Int4Linear)


def test_the_config_accepts_keys_of_other_writers() -> None:
    """AutoAWQ writes its version in capitals on some checkpoints, and other writers add keys."""
    config = AwqConfig(version="GEMM", backend="autoawq", do_fuse=False)
    assert (config.bits, config.group_size, config.modules_to_not_convert) == (4, 128, [])


@pytest.mark.parametrize("config_class", [AwqConfig, TransformersAwqConfig])
def test_keys_of_earlier_releases_are_read_and_not_written(config_class: type[Any]) -> None:
    config = config_class(unread=["layers.2"], dropped=["encoder"])
    assert (config.unused_blocks, config.unused_modules) == (["layers.2"], ["encoder"])
    content = config.to_dict()
    assert (content["unused_blocks"], content["unused_modules"]) == (["layers.2"], ["encoder"])
    assert "unread" not in content
    assert "dropped" not in content


# ---------------------------------------------------------------- embeddings of components


class EmbeddingModel(ModelMixin, ConfigMixin):
    """The smallest diffusers model with an embedding."""

    @register_to_config
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(16, 128)
        self.out = nn.Linear(128, 64, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.tokens(ids))


def make_embedding_model() -> Any:
    torch.manual_seed(0)
    return EmbeddingModel().eval()


def look_up(model: Any) -> Tensor:
    with torch.no_grad():
        return model(torch.arange(9)[None]).float()


EMBEDDING_CASES = {
    "diffusers": (replace(CASES["diffusers"], create=make_embedding_model, run=look_up), "tokens"),
    "transformers": (CASES["transformers"], "embed_tokens"),
}


@dataclass(frozen=True)
class QuantizedEmbedding:
    """A component of which only the embedding is quantized, and the tensors of the embedding."""

    component: QuantizedComponent
    name: str
    rows: dict[str, Tensor]


@pytest.fixture(params=list(EMBEDDING_CASES))
def embeddings(request: pytest.FixtureRequest, tmp_path: Path) -> QuantizedEmbedding:
    """Replaces an embedding's weight on disk by codes and scales."""
    case, name = EMBEDDING_CASES[request.param]
    component = QuantizedComponent(case, tmp_path / "component")
    file = component.folder / case.file
    tensors = load_file(file)
    int8_rows = quantize_rows(tensors.pop(f"{name}.weight"))
    rows = {f"{name}.{kind}": tensor for kind, tensor in int8_rows._asdict().items()}
    save_file(tensors | rows, file)
    component.dense.get_submodule(name).weight.data = dequantize_rows(int8_rows)
    component.configure(embeddings=[name])
    return QuantizedEmbedding(component, name, rows)


def test_an_8_bit_embedding_computes_what_the_dense_one_computes(embeddings: QuantizedEmbedding) -> None:
    component = embeddings.component
    model, loading_info = component.load(torch.float32)
    assert not any(loading_info.values()), loading_info
    assert isinstance(model.get_submodule(embeddings.name), Int8Embedding)
    actual, expected = component.case.run(model), component.case.run(component.dense)
    assert float((actual - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_embedding_is_bit_exact_and_returns_the_requested_dtype(
    embeddings: QuantizedEmbedding, dtype: torch.dtype
) -> None:
    model, _ = embeddings.component.load(dtype)
    state = model.state_dict()
    for name, tensor in embeddings.rows.items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name], tensor)
    assert model.get_submodule(embeddings.name)(torch.tensor([3])).dtype == dtype


def test_an_embedding_is_saved_and_loaded_again(embeddings: QuantizedEmbedding, tmp_path: Path) -> None:
    component = embeddings.component
    model, _ = component.load(torch.bfloat16)
    model.save_pretrained(tmp_path / "again")
    again, loading_info = component.case.load(tmp_path / "again", torch.bfloat16)
    assert not any(loading_info.values()), loading_info
    assert isinstance(again.get_submodule(embeddings.name), Int8Embedding)
    assert torch.equal(component.case.run(again), component.case.run(model))


def test_a_name_that_is_not_an_embedding_is_rejected(embeddings: QuantizedEmbedding) -> None:
    embeddings.component.configure(embeddings=["norm"])
    with pytest.raises(ValueError, match=f"'norm' is not an embedding of the model; it has .*{embeddings.name}"):
        embeddings.component.load()
