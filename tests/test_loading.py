"""The INT4 loader: a pressed component computes what a dense one with the dequantized weights computes."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AwqConfig as StockAwqConfig

from edgepress.numerics import affine, awq_packing
from edgepress.numerics.int4_matmul import cpu_channel_order
from edgepress.numerics.int8_rows import dequantize_rows, quantize_rows
from edgepress.pipelines.hf_quantizers import AwqConfig
from edgepress.pipelines.quantized_modules import Int4Linear, Int8Embedding

GROUP_SIZE = 64
AWQ_TENSORS = ("qweight", "qzeros", "scales")


# ---------------------------------------------------------------- one layer


def random_layer(
    out: int, inner: int, group_size: int, bias: bool, zero_point: bool = True
) -> tuple[Int4Linear, Tensor]:
    """A layer with random codes, and the dense weight that they stand for."""
    generator = torch.Generator().manual_seed(out + inner)
    weight = torch.randn(out, inner, generator=generator) / inner**0.5
    quantized = affine.quantize(
        weight, affine.minmax_qparams(weight, affine.QuantSpec(group_size=group_size, symmetric=not zero_point))
    )
    layer = Int4Linear(inner, out, group_size, bias)
    state: dict[str, Tensor] = dict(awq_packing.pack_awq(quantized)._asdict())
    if bias:
        state["bias"] = torch.randn(out, generator=generator)
    layer.load_state_dict(state)
    return layer, affine.dequantize(quantized)


def inputs(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 128), (2, 5, 128), (128,)])
def test_in_float32_it_is_the_linear_layer_of_the_dequantized_weight(bias: bool, shape: tuple[int, ...]) -> None:
    layer, weight = random_layer(24, 128, GROUP_SIZE, bias)
    x = inputs(*shape)
    error = float((layer(x) - F.linear(x, weight, layer.bias)).abs().max())
    assert error <= 1e-6, f"off by {error}"
    assert layer(x).dtype == torch.float32


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("zero_point", [True, False])
@pytest.mark.parametrize("group_size", [32, 64, 128])
@pytest.mark.parametrize("shape", [(5, 256), (2, 3, 256), (256,)])
@pytest.mark.parametrize("out", [64, 24])  # the CPU's int4 kernel takes multiples of 64; else dequantization
def test_in_bfloat16_it_is_that_layer_within_rounding(
    out: int, shape: tuple[int, ...], group_size: int, zero_point: bool, bias: bool
) -> None:
    """Inputs, scales and outputs are rounded to 8 bits: some parts in a thousand of the output's size."""
    layer, weight = random_layer(out, 256, group_size, bias, zero_point)
    x = inputs(*shape, dtype=torch.bfloat16)
    actual, expected = (
        layer(x),
        F.linear(x.double(), weight.double(), None if layer.bias is None else layer.bias.double()),
    )
    assert actual.dtype == torch.bfloat16
    assert actual.shape == expected.shape
    error = float((actual - expected).norm() / expected.norm())
    assert error < 6e-3, f"relative error {error}"


def test_float16_inputs_are_taken_too() -> None:
    layer, weight = random_layer(32, 128, GROUP_SIZE, bias=True)
    x = inputs(4, 128, dtype=torch.float16)
    expected = F.linear(x.double(), weight.double(), layer.get_buffer("bias").double())
    error = float((layer(x) - expected).norm() / expected.norm())
    assert layer(x).dtype == torch.float16
    assert error < 2e-3, f"relative error {error}"


def test_the_dtype_may_change_between_calls() -> None:
    layer, weight = random_layer(64, 128, GROUP_SIZE, bias=False)
    x = inputs(4, 128)
    for dtype, limit in ((torch.bfloat16, 6e-3), (torch.float32, 1e-6), (torch.bfloat16, 6e-3)):
        expected = F.linear(x.to(dtype).float(), weight)
        error = float((layer(x.to(dtype)).float() - expected).norm() / expected.norm())
        assert error < limit, f"relative error {error} in {dtype}"


def test_the_dequantized_weight_is_the_stored_one_to_the_bit() -> None:
    layer, weight = random_layer(24, 128, GROUP_SIZE, bias=False)
    assert torch.equal(layer.dequantize(), weight)


def test_its_state_is_the_file_layout_and_nothing_else() -> None:
    layer, _ = random_layer(32, 128, GROUP_SIZE, bias=True)
    layer(inputs(1, 128, dtype=torch.bfloat16))
    shapes = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in layer.state_dict().items()}
    assert shapes == {
        "qweight": ((128, 4), torch.int32),
        "qzeros": ((2, 4), torch.int32),
        "scales": ((2, 32), torch.float16),
        "bias": ((32,), torch.float32),
    }
    assert list(layer.parameters()) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_other_values_are_used_at_once(dtype: torch.dtype) -> None:
    layer, _ = random_layer(64, 128, GROUP_SIZE, bias=True)
    second, weight = random_layer(64, 128, GROUP_SIZE, bias=True, zero_point=False)
    x = inputs(3, 128, dtype=dtype)
    layer(x)
    layer.load_state_dict(second.state_dict())
    assert torch.equal(layer(x), second(x))
    assert torch.equal(layer.dequantize(), weight)


@pytest.mark.parametrize("rows", [1, 100])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_product_leaves_nothing_in_memory_but_its_result(rows: int, dtype: torch.dtype) -> None:
    layer, _ = random_layer(64, 128, GROUP_SIZE, bias=True)
    cpu_channel_order()  # kept for all layers
    x = inputs(rows, 128, dtype=dtype)
    before = live_tensor_ids()
    out = layer(x)
    assert live_tensor_ids() - before == {id(out)}


def live_tensor_ids() -> set[int]:
    gc.collect()
    return {id(tensor) for tensor in gc.get_objects() if issubclass(type(tensor), Tensor)}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_cast_of_the_model_spares_the_scales(dtype: torch.dtype) -> None:
    layer, weight = random_layer(64, 128, GROUP_SIZE, bias=True)
    nn.Sequential(layer).to(dtype)
    assert layer.scales.dtype == torch.float16
    assert layer.get_buffer("bias").dtype == dtype
    assert torch.equal(layer.dequantize(), weight)


# ---------------------------------------------------------------- one embedding


def random_embedding(
    rows: int = 16, width: int = 8, dtype: torch.dtype = torch.float32
) -> tuple[Int8Embedding, Tensor]:
    """An embedding with random codes, and the dense weight that they stand for."""
    quantized = quantize_rows(torch.randn(rows, width, generator=torch.Generator().manual_seed(rows)))
    layer = Int8Embedding(rows, width, dtype)
    layer.load_state_dict(quantized._asdict())
    return layer, dequantize_rows(quantized)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3), (0,)])
def test_an_embedding_is_that_of_the_dequantized_weight(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    layer, weight = random_embedding(dtype=dtype)
    ids = torch.randint(16, shape, generator=torch.Generator().manual_seed(0))
    assert torch.equal(layer(ids), F.embedding(ids, weight.to(dtype)))
    assert layer(ids).dtype == dtype


def test_a_cast_of_the_model_casts_what_an_embedding_gives_and_not_its_scales() -> None:
    layer, weight = random_embedding()
    nn.Sequential(layer).to(torch.bfloat16)
    assert layer.scales.dtype == torch.float16
    assert torch.equal(layer(torch.arange(16)), weight.bfloat16())


# ---------------------------------------------------------------- whole components


def z_image() -> Any:
    from diffusers import ZImageTransformer2DModel

    torch.manual_seed(0)
    model = ZImageTransformer2DModel(
        dim=384, n_heads=6, n_kv_heads=6, n_layers=1, n_refiner_layers=1, cap_feat_dim=128,
        axes_dims=[16, 24, 24], axes_lens=[256, 64, 64],
    )  # fmt: skip
    return model.eval()


def qwen3() -> Any:
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
    latents, text = inputs(16, 1, 8, 8, dtype=dtype), inputs(7, 128, dtype=dtype)
    with torch.no_grad():
        sample: Tensor = model([latents], torch.tensor([0.5], dtype=dtype), [text], return_dict=False)[0][0]
    return sample.float()


def encode(model: Any) -> Tensor:
    with torch.no_grad():
        state: Tensor = model(torch.arange(9)[None]).last_hidden_state
    return state.float()


@dataclass(frozen=True)
class ComponentCase:
    """A kind of component: how one is made, run and stored, and what `from_pretrained` calls its dtype."""

    make: Callable[[], Any]
    run: Callable[[Any], Tensor]
    save_config: Callable[[Any, Path], object]
    file: str
    dtype_key: str

    def load(self, folder: Path, dtype: torch.dtype | None = None) -> tuple[Any, dict[str, Any]]:
        """The model by its class's own `from_pretrained`, and what that says of its keys."""
        model, loading_info = type(self.make()).from_pretrained(
            folder, output_loading_info=True, **{self.dtype_key: dtype}
        )
        return model, loading_info


CASES = {
    "diffusers": ComponentCase(
        z_image,
        denoise,
        lambda model, folder: model.save_config(folder),
        "diffusion_pytorch_model.safetensors",
        "torch_dtype",
    ),
    "transformers": ComponentCase(
        qwen3, encode, lambda model, folder: model.config.save_pretrained(folder), "model.safetensors", "dtype"
    ),
}


class QuantizedComponent:
    """A component written to disk with some linears packed, and the dense model that it stands for."""

    def __init__(self, case: ComponentCase, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        self.case, self.folder = case, folder
        self.dense = case.make().to(dtype)
        self.packed: dict[str, Tensor] = {}
        unquantized: list[str] = []
        for name, module in self.dense.named_modules():
            if isinstance(module, nn.Linear) and name.startswith("layers.0."):
                quantized = affine.quantize(
                    module.weight.data,
                    affine.minmax_qparams(module.weight.data, affine.QuantSpec(group_size=GROUP_SIZE)),
                )
                self.packed |= {f"{name}.{kind}": t for kind, t in awq_packing.pack_awq(quantized)._asdict().items()}
                module.weight.data = affine.dequantize(quantized)
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
        usual = {"quant_method": "awq", "bits": 4, "group_size": GROUP_SIZE, "zero_point": True, "version": "gemm"}
        config["quantization_config"] = usual | config.get("quantization_config", {}) | changes
        path.write_text(json.dumps(config))

    def load(self, dtype: torch.dtype | None = None) -> tuple[Any, dict[str, Any]]:
        return self.case.load(self.folder, dtype)


@pytest.fixture(params=list(CASES))
def pressed(request: pytest.FixtureRequest, tmp_path: Path) -> QuantizedComponent:
    return QuantizedComponent(CASES[request.param], tmp_path / "component")


def test_a_pressed_component_computes_what_the_dense_one_computes(pressed: QuantizedComponent) -> None:
    model, loading_info = pressed.load(torch.float32)
    assert not any(loading_info.values()), loading_info
    layers = [name for name, module in model.named_modules() if isinstance(module, Int4Linear)]
    assert layers == list(dict.fromkeys(name.rpartition(".")[0] for name in pressed.packed))
    actual, expected = pressed.case.run(model), pressed.case.run(pressed.dense)
    error = float((actual - expected).abs().max() / expected.abs().max())
    assert error < 1e-5, f"relative error {error}"


def test_a_pressed_component_is_loaded_without_gradients_and_for_inference(pressed: QuantizedComponent) -> None:
    model, _ = pressed.load(torch.float32)
    assert not model.training
    assert not model.get_submodule(next(iter(pressed.packed)).rpartition(".")[0]).scales.requires_grad


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
def test_what_is_packed_is_loaded_to_the_bit_whatever_the_dtype(
    pressed: QuantizedComponent, dtype: torch.dtype | None
) -> None:
    model, loading_info = pressed.load(dtype)
    assert not any(loading_info.values()), loading_info
    state = model.state_dict()
    assert {name: state[name].dtype for name in pressed.packed} == {n: t.dtype for n, t in pressed.packed.items()}
    assert [name for name, tensor in pressed.packed.items() if not torch.equal(state[name], tensor)] == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("case", CASES)
def test_what_is_not_packed_is_loaded_in_the_dtype_asked_for(
    case: str, stored: torch.dtype, dtype: torch.dtype, tmp_path: Path
) -> None:
    model, _ = QuantizedComponent(CASES[case], tmp_path / "component", stored).load(dtype)
    unpacked = {
        name: tensor for name, tensor in model.state_dict().items() if name.rpartition(".")[2] not in AWQ_TENSORS
    }
    assert {name: tensor.dtype for name, tensor in unpacked.items()} == dict.fromkeys(unpacked, dtype)


def test_in_bfloat16_it_computes_what_the_dense_one_computes_in_bfloat16(pressed: QuantizedComponent) -> None:
    model, _ = pressed.load(torch.bfloat16)
    actual, expected = pressed.case.run(model), pressed.case.run(pressed.dense.bfloat16())
    error = float((actual - expected).norm() / expected.norm())
    assert error < 3e-2, f"relative error {error}"


def test_saving_and_loading_again_changes_nothing(pressed: QuantizedComponent, tmp_path: Path) -> None:
    model, _ = pressed.load(torch.bfloat16)
    model.save_pretrained(tmp_path / "again")
    saved = load_file(tmp_path / "again" / pressed.case.file)
    assert [name for name, tensor in pressed.packed.items() if not torch.equal(saved[name], tensor)] == []
    again, loading_info = pressed.case.load(tmp_path / "again", torch.bfloat16)
    assert not any(loading_info.values()), loading_info
    assert torch.equal(pressed.case.run(again), pressed.case.run(model))


@pytest.mark.parametrize("changes", [{"bits": 8}, {"bits": 3}, {"version": "gemv"}, {"version": "nonsense"}])
def test_another_width_or_layout_is_refused(pressed: QuantizedComponent, changes: dict[str, object]) -> None:
    """Codes of another layout can have the very same shapes, and would be read as noise."""
    pressed.configure(**changes)
    with pytest.raises(ValueError, match=str(next(iter(changes.values())))):
        pressed.load()


@pytest.mark.parametrize("group_size", [32, 128])
def test_a_group_size_other_than_the_files_is_refused(pressed: QuantizedComponent, group_size: int) -> None:
    pressed.configure(group_size=group_size)
    with pytest.raises((ValueError, RuntimeError), match=r"qzeros|scales|mismatch"):
        pressed.load(torch.bfloat16)


@pytest.mark.parametrize("arguments", [{"bits": 8}, {"version": "gemv"}, {"bits": 2, "version": "GEMV"}])
def test_the_config_class_refuses_what_it_cannot_read(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="unsupported AWQ format"):
        AwqConfig(**arguments)


@pytest.mark.filterwarnings("ignore:You passed `quantization_config`")
def test_transformers_own_config_may_come_with_the_call(tmp_path: Path) -> None:
    """As where the same line of code opens the component with and without edgepress."""
    component = QuantizedComponent(CASES["transformers"], tmp_path / "component")
    model = type(component.dense).from_pretrained(component.folder, quantization_config=StockAwqConfig(backend="gemm"))
    assert isinstance(model.get_submodule("layers.0.mlp.up_proj"), Int4Linear)


def test_the_config_class_takes_the_words_of_other_writers() -> None:
    """AutoAWQ writes its version in capitals on some checkpoints, and other writers add keys of their own."""
    config = AwqConfig(version="GEMM", backend="autoawq", do_fuse=False)
    assert (config.bits, config.group_size, config.modules_to_not_convert) == (4, 128, [])


# ---------------------------------------------------------------- embeddings of components


class EmbeddingModel(ModelMixin, ConfigMixin):
    """The smallest diffusers model with an embedding."""

    @register_to_config
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(16, 128)
        self.out = nn.Linear(128, 64, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.words(ids))


def words() -> Any:
    torch.manual_seed(0)
    return EmbeddingModel().eval()


def look_up(model: Any) -> Tensor:
    with torch.no_grad():
        return model(torch.arange(9)[None]).float()


EMBEDDED = {
    "diffusers": (replace(CASES["diffusers"], make=words, run=look_up), "words"),
    "transformers": (CASES["transformers"], "embed_tokens"),
}


@dataclass(frozen=True)
class Embedded:
    """A component whose embedding alone is packed, and what is packed of it."""

    component: QuantizedComponent
    name: str
    rows: dict[str, Tensor]


@pytest.fixture(params=list(EMBEDDED))
def embeddings(request: pytest.FixtureRequest, tmp_path: Path) -> Embedded:
    """Writes an embedding's codes and scales in the place of its weight."""
    case, name = EMBEDDED[request.param]
    component = QuantizedComponent(case, tmp_path / "component")
    file = component.folder / case.file
    stored = load_file(file)
    quantized = quantize_rows(stored.pop(f"{name}.weight"))
    rows = {f"{name}.{kind}": tensor for kind, tensor in quantized._asdict().items()}
    save_file(stored | rows, file)
    component.dense.get_submodule(name).weight.data = dequantize_rows(quantized)
    component.configure(embeddings=[name])
    return Embedded(component, name, rows)


def test_an_embedding_in_8_bits_computes_what_the_dense_one_computes(embeddings: Embedded) -> None:
    component = embeddings.component
    model, loading_info = component.load(torch.float32)
    assert not any(loading_info.values()), loading_info
    assert isinstance(model.get_submodule(embeddings.name), Int8Embedding)
    actual, expected = component.case.run(model), component.case.run(component.dense)
    assert float((actual - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_embedding_is_loaded_to_the_bit_and_gives_the_dtype_asked_for(
    embeddings: Embedded, dtype: torch.dtype
) -> None:
    model, _ = embeddings.component.load(dtype)
    state = model.state_dict()
    for name, tensor in embeddings.rows.items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name], tensor)
    assert model.get_submodule(embeddings.name)(torch.tensor([3])).dtype == dtype


def test_an_embedding_is_saved_and_loaded_again(embeddings: Embedded, tmp_path: Path) -> None:
    component = embeddings.component
    model, _ = component.load(torch.bfloat16)
    model.save_pretrained(tmp_path / "again")
    again, loading_info = component.case.load(tmp_path / "again", torch.bfloat16)
    assert not any(loading_info.values()), loading_info
    assert isinstance(again.get_submodule(embeddings.name), Int8Embedding)
    assert torch.equal(component.case.run(again), component.case.run(model))


def test_a_name_that_is_no_embedding_is_refused(embeddings: Embedded) -> None:
    embeddings.component.configure(embeddings=["norm"])
    with pytest.raises(ValueError, match=f"'norm' is not an embedding of the model; it has .*{embeddings.name}"):
        embeddings.component.load()


# ---------------------------------------------------------------- weight of the import


def test_importing_edgepress_imports_neither_torch_nor_diffusers() -> None:
    script = "import sys, edgepress; print(*sorted({'torch', 'diffusers', 'transformers', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
