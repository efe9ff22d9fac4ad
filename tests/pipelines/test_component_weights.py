"""Weights are checked against their classes from headers alone, and unusual ones are loaded as they mean to be."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.previous_artifact import extract_previous_artifact
from helpers.tiny import edit_weights, store_as_published
from helpers.tiny_families import FLUX, KLEIN, QWEN, SD3, SDXL, write_tiny_family
from safetensors.torch import load_file, save_file
from torch import Tensor

from edgepress.common.errors import UserError
from edgepress.export.graph.source_model import open_source
from edgepress.models.registry import get_family
from edgepress.pipelines.component_weights import (
    build_described_module,
    check_family_weights,
    check_pipeline_weights,
)
from edgepress.pipelines.hub import read_pipeline_class
from edgepress.pipelines.sampling import load_pipeline
from edgepress.quantize.plan import build_plan
from edgepress.recipes.schema import QuantizationSettings
from edgepress.storage.checkpoint import Checkpoint, write_sharded

Tensors = dict[str, Tensor]
COMPONENTS = ("text_encoder", "transformer", "vae")


@pytest.fixture
def pipeline(tiny: Path, tmp_path: Path) -> Path:
    """A copy of the tiny pipeline that a test may break."""
    shutil.copytree(tiny, tmp_path / "pipeline")
    return tmp_path / "pipeline"


def plan_quantization(folder: Path) -> None:
    build_plan(folder, QuantizationSettings())


def plan_export(folder: Path) -> None:
    open_source(folder).check_weights()


def check_candidate(folder: Path) -> None:
    check_pipeline_weights(folder)
    check_family_weights(folder, get_family(read_pipeline_class(folder)))


STAGES = {"quantize": plan_quantization, "export": plan_export, "evaluate": check_candidate}


def rename(folder: Path, new_name: Callable[[str], str]) -> None:
    with edit_weights(folder) as tensors:
        renamed = {new_name(name): tensor for name, tensor in tensors.items()}
        tensors.clear()
        tensors.update(renamed)


def assert_equal_weights(model: Any, expected: Any) -> None:
    tensors = expected.state_dict()
    assert model.state_dict().keys() == tensors.keys()
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in tensors.items())


# ---------------------------------------------------------------- read as they mean to be


@pytest.mark.slow
@pytest.mark.parametrize("name", [FLUX, SD3, SDXL, KLEIN, QWEN])
def test_evaluate_takes_every_family_under_the_names_that_diffusers_stores(name: str, tmp_path: Path) -> None:
    """transformers stores Qwen-Image's text encoder under names that its modules do not have."""
    write_tiny_family(name, tmp_path)
    check_candidate(tmp_path)


def use_variant(pipeline: Path) -> None:
    for file in pipeline.glob("*/*.safetensors"):
        file.rename(file.with_suffix(".fp16.safetensors"))


def add_wrapper_names(pipeline: Path) -> None:
    rename(pipeline / "vae", lambda name: f"_orig_mod.{name}")
    rename(pipeline / "transformer", lambda name: f"module.{name.replace('layers.0.', 'layers.0._orig_mod.')}")
    rename(pipeline / "text_encoder", lambda name: f"base_model.model.{name}")


def add_comfy_names(pipeline: Path) -> None:
    rename(pipeline / "transformer", lambda name: f"model.diffusion_model.{name}")


def add_training_names(pipeline: Path) -> None:
    rename(pipeline / "vae", lambda name: f"ema_model.{name}")
    rename(pipeline / "transformer", lambda name: f"module.transformer.{name}")
    rename(pipeline / "text_encoder", lambda name: f"text_encoder.{name}")


def prefix_text_encoder(pipeline: Path) -> None:
    rename(pipeline / "text_encoder", lambda name: f"model.{name}")


def name_a_class_with_a_head(pipeline: Path) -> None:
    """In model_index.json too, and with prefixed names."""
    store_as_published(pipeline, head=False)
    name_it_in_the_index(pipeline)


def name_a_class_with_a_head_only(pipeline: Path) -> None:
    """In both files, but the names have no prefix."""
    config = pipeline / "text_encoder" / "config.json"
    content = {"architectures": ["Qwen3ForCausalLM"]}
    config.write_text(json.dumps(json.loads(config.read_text()) | content))
    name_it_in_the_index(pipeline)


def name_it_in_the_index(pipeline: Path) -> None:
    index = pipeline / "model_index.json"
    content = {"text_encoder": ["transformers", "Qwen3ForCausalLM"]}
    index.write_text(json.dumps(json.loads(index.read_text()) | content))


def link_a_readme_to_nothing(pipeline: Path) -> None:
    (pipeline / "README.md").symlink_to("blobs/1234")


def link_into_blobs(pipeline: Path) -> None:
    """As the cache of the Hub stores a snapshot: every file is a link to one whose name says nothing."""
    blobs = pipeline.parent / "blobs"
    blobs.mkdir()
    for number, file in enumerate(path for path in sorted(pipeline.rglob("*")) if path.is_file()):
        target = shutil.move(file, blobs / f"{number:040x}")
        file.symlink_to(os.path.relpath(target, file.parent))


def keep_shards_beside_a_single_file(pipeline: Path) -> None:
    for component, stem in (("transformer", "diffusion_pytorch_model"), ("text_encoder", "model")):
        tensors = load_file(pipeline / component / f"{stem}.safetensors")
        size = sum(tensor.nbytes for tensor in tensors.values())
        write_sharded(iter(tensors.items()), pipeline / component, stem, size // 2)
        assert (pipeline / component / f"{stem}.safetensors.index.json").exists()
        save_file(tensors, pipeline / component / f"{stem}.safetensors", {"format": "pt"})


def leave_unused_components(pipeline: Path) -> None:
    """One that the index switches off, and one that it does not name."""
    for name in ("safety_checker", "prior"):
        shutil.copytree(pipeline / "vae", pipeline / name)
    index = pipeline / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"safety_checker": [None, None]}))


def store_computed_buffers(pipeline: Path) -> None:
    with edit_weights(pipeline / "text_encoder") as tensors:
        tensors["rotary_emb.inv_freq"] = torch.ones(32)


EQUAL = (
    use_variant,
    add_wrapper_names,
    add_comfy_names,
    add_training_names,
    prefix_text_encoder,
    name_a_class_with_a_head,
    name_a_class_with_a_head_only,
    link_a_readme_to_nothing,
    link_into_blobs,
    keep_shards_beside_a_single_file,
    leave_unused_components,
    store_computed_buffers,
)


@pytest.mark.parametrize("arrange", EQUAL, ids=lambda arrange: arrange.__name__)
def test_all_stages_read_the_same_weights(arrange: Callable[[Path], None], tiny: Path, pipeline: Path) -> None:
    """What is quantized, exported and loaded as the reference: the weights of the plain pipeline."""
    arrange(pipeline)
    for check in STAGES.values():
        check(pipeline)
    plan, source = build_plan(pipeline, QuantizationSettings()), open_source(pipeline)
    loaded = load_pipeline(pipeline, torch.float32)
    for component in COMPONENTS:
        (file,) = (tiny / component).glob("*.safetensors")
        expected = load_file(file)
        part, exported = plan_component(plan, component), source.open_checkpoint(component)
        assert set(part.used_tensor_names) == {name for name in expected if not name.startswith(part.unused_prefixes)}
        assert all(torch.equal(part.checkpoint.load_tensor(name), tensor) for name, tensor in expected.items())
        assert all(torch.equal(exported.load_tensor(name), tensor) for name, tensor in expected.items())
        module = getattr(loaded, component)
        weights = getattr(module, "base_model", module).state_dict()
        assert all(torch.equal(weights[name], tensor) for name, tensor in expected.items())


def plan_component(plan: Any, name: str) -> Any:
    return next(part for part in (*plan.components, *plan.unquantized_components) if part.name == name)


LAYOUTS = {"whole": COMPONENTS, "linears alone": ("transformer",), "text encoder alone": ("text_encoder",)}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_plain_float8_is_read_exactly(
    layout: str, dtype: torch.dtype, pipeline: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for component in LAYOUTS[layout]:
        with edit_weights(pipeline / component) as tensors:
            for name, tensor in tensors.items():
                if layout != "linears alone" or tensor.ndim == 2:
                    tensors[name] = tensor.clamp(-400, 400).to(dtype)
    for check in STAGES.values():
        check(pipeline)
    assert "float8 without scales" in caplog.text
    plan, loaded = build_plan(pipeline, QuantizationSettings()), load_pipeline(pipeline, torch.float32)
    for component in LAYOUTS[layout]:
        (file,) = (pipeline / component).glob("*.safetensors")
        stored = load_file(file)
        assert {tensor.dtype for tensor in stored.values()} >= {dtype}
        for name, tensor in stored.items():
            assert torch.equal(plan_component(plan, component).checkpoint.load_tensor(name).float(), tensor.float())
            assert torch.equal(getattr(loaded, component).state_dict()[name], tensor.float())


def test_strays_and_wrapped_names_are_logged(pipeline: Path, caplog: pytest.LogCaptureFixture) -> None:
    add_wrapper_names(pipeline)
    save_file({"w": torch.ones(1)}, pipeline / "vae" / "diffusion_pytorch_model_backup.safetensors")
    with caplog.at_level(logging.WARNING):
        check_pipeline_weights(pipeline)
    assert "vae: diffusion_pytorch_model.safetensors is loaded; ignored: diffusion_pytorch_model_backup" in caplog.text
    assert "'_orig_mod.' and 'module.', which is removed" in caplog.text


# ---------------------------------------------------------------- refused


def add_tensors(component: str, *names: str) -> Callable[[Path], None]:
    def add(pipeline: Path) -> None:
        with edit_weights(pipeline / component) as tensors:
            tensors.update({name: torch.ones(1) for name in names})

    return add


def convert(component: str, dtype: torch.dtype) -> Callable[[Path], None]:
    def store(pipeline: Path) -> None:
        with edit_weights(pipeline / component) as tensors:
            for name, tensor in tensors.items():
                tensors[name] = tensor.to(dtype) if tensor.ndim == 2 else tensor

    return store


def add_quantization_config(pipeline: Path) -> None:
    config = pipeline / "text_encoder" / "config.json"
    content = {"quantization_config": {"quant_method": "fp8"}}
    config.write_text(json.dumps(json.loads(config.read_text()) | content))


LAYER = "layers.0.attention.to_q"
FORMATS = {
    "ComfyUI's scales": (add_tensors("transformer", f"{LAYER}.scale_weight"), "scaled float8 as ComfyUI"),
    "ComfyUI's marker": (add_tensors("transformer", "scaled_fp8"), "scaled float8 as ComfyUI"),
    "ComfyUI's new scheme": (add_tensors("transformer", f"{LAYER}.comfy_quant"), "as ComfyUI stores them"),
    "scales": (add_tensors("transformer", f"{LAYER}.weight_scale"), "compressed-tensors and ModelOpt"),
    "block scales": (add_tensors("text_encoder", "layers.0.mlp.up_proj.weight_scale_inv"), "a scale for each block"),
    "bitsandbytes": (
        add_tensors("transformer", f"{LAYER}.weight.quant_state.bitsandbytes__nf4"),
        "quantized by bitsandbytes",
    ),
    "bitsandbytes in 8 bits": (add_tensors("transformer", f"{LAYER}.SCB"), "quantized by bitsandbytes"),
    "AWQ": (add_tensors("transformer", f"{LAYER}.qweight"), "quantized by AWQ or GPTQ"),
    "quanto": (add_tensors("transformer", f"{LAYER}.weight._data"), "quantized by optimum-quanto"),
    "int8": (convert("transformer", torch.int8), "has the dtype I8: it is quantized"),
    "uint8": (convert("text_encoder", torch.uint8), "has the dtype U8: it is quantized"),
    "complex": (convert("text_encoder", torch.complex64), "has the dtype C64, which cannot be read"),
    "peft": (add_tensors("transformer", f"{LAYER}.lora_A.default.weight"), "a LoRA that was not merged"),
    "a LoRA of diffusers": (add_tensors("transformer", f"{LAYER}.lora.down.weight"), "a LoRA that was not merged"),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", FORMATS)
def test_weights_that_are_not_read_are_refused_by_name(name: str, stage: str, pipeline: Path) -> None:
    """And the message says what to do."""
    arrange, message = FORMATS[name]
    arrange(pipeline)
    with pytest.raises(UserError, match=rf"{message}.*(Use the pipeline in its original precision|Merge it with)"):
        STAGES[stage](pipeline)


def remove_weight(pipeline: Path) -> None:
    with edit_weights(pipeline / "transformer") as tensors:
        del tensors["layers.0.feed_forward.w2.weight"]


def change_shape(pipeline: Path) -> None:
    with edit_weights(pipeline / "vae") as tensors:
        tensors["decoder.conv_in.bias"] = torch.ones(9)


def store_integers(pipeline: Path) -> None:
    with edit_weights(pipeline / "transformer") as tensors:
        tensors["x_pad_token"] = tensors["x_pad_token"].to(torch.int8)


def use_original_names(pipeline: Path) -> None:
    rename(pipeline / "transformer", lambda name: name.replace("attention.to_", "attention.w"))


def add_unknown_names(pipeline: Path) -> None:
    rename(pipeline / "transformer", lambda name: f"student.net.{name}")


def add_second_copy(pipeline: Path) -> None:
    with edit_weights(pipeline / "vae") as tensors:
        tensors.update({f"ema_model.{name}": tensor.clone() for name, tensor in tensors.items()})


def change_config(component: str, **changes: Any) -> Callable[[Path], None]:
    def change(pipeline: Path) -> None:
        file = pipeline / component / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


MISMATCHES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a missing weight": (remove_weight, r"'layers\.0\.feed_forward\.w2\.weight'.* is missing"),
    "another shape": (change_shape, r"'decoder\.conv_in\.bias' .* has shape \(9,\), but config\.json describes \(8,\)"),
    "an unknown weight": (add_tensors("transformer", "extra.weight"), r"does not have, .*: extra\.weight\."),
    "names of a single file": (use_original_names, r"are missing, and .* are unknown\. .*edgepress convert"),
    "names of another module": (add_unknown_names, r"all names of weights begin with 'student\.net\.'\. Remove that"),
    "a second copy": (add_second_copy, r"begin with 'ema_model\.'\. Remove that copy"),
    "fewer layers": (
        change_config("text_encoder", num_hidden_layers=2, layer_types=None),
        r"does not have.*layers\.2\.",
    ),
    "more layers": (change_config("text_encoder", num_hidden_layers=4, layer_types=None), r"'layers\.3\..*missing"),
    "absurdly many layers": (
        change_config("transformer", n_layers=10**9),
        r"says n_layers: 1000000000, but .* has only",
    ),
    "no epsilon": (
        change_config("transformer", norm_eps=None),
        r"describes a ZImageTransformer2DModel that cannot compute: \S+\.eps is null\.",
    ),
    "no base": (change_config("transformer", rope_theta=0.0), r"cannot compute: rope_theta is 0\.0\."),
    "no frequencies": (
        change_config("text_encoder", rope_parameters={"rope_theta": 0.0, "rope_type": "default"}),
        r"cannot compute: rotary_emb\.inv_freq has numbers that are not finite\.",
    ),
    "infinity": (
        change_config("vae", scaling_factor=float("inf")),
        r"config\.json cannot be read \(the number Infinity",
    ),
    "integers": (
        store_integers,
        r"'x_pad_token' .* has the dtype I8, but a \w+ has floating-point numbers there",
    ),
    "a quantized component": (add_quantization_config, r"already quantized \(fp8\)"),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", MISMATCHES)
def test_weights_that_contradict_their_config_are_refused(name: str, stage: str, pipeline: Path) -> None:
    arrange, message = MISMATCHES[name]
    arrange(pipeline)
    if (name, stage) == ("a quantized component", "evaluate"):
        STAGES[stage](pipeline)  # its library loads it
        return
    with pytest.raises(UserError, match=message):
        STAGES[stage](pipeline)


@pytest.mark.parametrize(("component", "library"), [("text_encoder", "transformers"), ("vae", "diffusers")])
def test_a_broken_package_is_not_the_configs_fault(
    component: str, library: str, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Checkpoint(tiny / component)
    monkeypatch.setitem(sys.modules, library, None)  # importing it fails
    with pytest.raises(UserError, match=rf"package '{library}', which is not installed.*pip install"):
        build_described_module(checkpoint, library, "AnyModel", checkpoint.load_config())


def test_another_class_in_the_index_is_refused_by_quantize(pipeline: Path) -> None:
    index = pipeline / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"text_encoder": ["transformers", "GPT2Model"]}))
    with pytest.raises(UserError, match=r"names a 'GPT2Model' as text_encoder, but a Qwen3Model was expected"):
        plan_quantization(pipeline)


# ---------------------------------------------------------------- quantized by edgepress


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact of an earlier release, with 4-bit layers, 8-bit embeddings and unused modules left out."""
    folder = tmp_path_factory.mktemp("published")
    return extract_previous_artifact(folder)


@pytest.fixture
def quantized(published: Path, tmp_path: Path) -> Path:
    """A copy of its model that a test may break."""
    shutil.copytree(published / "model", tmp_path / "model")
    return tmp_path / "model"


QUANTIZED_STAGES = {"export": plan_export, "evaluate": check_candidate}


@pytest.mark.slow
@pytest.mark.parametrize("stage", QUANTIZED_STAGES)
def test_quantized_weights_are_known(quantized: Path, stage: str) -> None:
    QUANTIZED_STAGES[stage](quantized)


def drop(component: str, suffix: str) -> Callable[[Path], None]:
    def remove(pipeline: Path) -> None:
        with edit_weights(pipeline / component) as tensors:
            del tensors[min(name for name in tensors if name.endswith(suffix))]

    return remove


def replace_one(component: str, suffix: str, new: Callable[[Tensor], Tensor]) -> Callable[[Path], None]:
    def store(pipeline: Path) -> None:
        with edit_weights(pipeline / component) as tensors:
            name = min(name for name in tensors if name.endswith(suffix))
            tensors[name] = new(tensors[name]).contiguous()

    return store


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "missing scales": (drop("transformer", ".scales"), r"\.scales', required by config\.json, is missing"),
    "missing codes": (drop("text_encoder", ".codes"), r"\.codes', required by config\.json, is missing"),
    "a missing norm": (drop("transformer", "norm1.weight"), r"norm1\.weight', required by config\.json, is missing"),
    "an unknown weight": (add_tensors("transformer", "extra.weight"), r"does not have, .*: extra\.weight\."),
    "float weights": (add_tensors("transformer", f"{LAYER}.weight"), r"does not have, .*: .*to_q\.weight\."),
    "another layout": (replace_one("transformer", ".qweight", torch.t), "has shape .*, but config.json describes"),
    "other codes": (replace_one("transformer", ".qzeros", Tensor.long), r"has the dtype I64 instead of I32\."),
    "wider scales": (replace_one("transformer", ".scales", Tensor.float), r"has the dtype F32 instead of F16\."),
    "integers": (replace_one("transformer", "norm1.weight", Tensor.int), r"has the dtype I32 instead of F64 or F32"),
}


@pytest.mark.parametrize("stage", QUANTIZED_STAGES)
@pytest.mark.parametrize("name", DAMAGES)
def test_quantized_weights_that_contradict_their_config_are_refused(name: str, stage: str, quantized: Path) -> None:
    arrange, message = DAMAGES[name]
    arrange(quantized)
    with pytest.raises(UserError, match=message):
        QUANTIZED_STAGES[stage](quantized)


def test_a_damaged_model_of_an_artifact_is_made_or_copied_again(published: Path, tmp_path: Path) -> None:
    shutil.copytree(published, tmp_path / "artifact")
    drop("transformer", ".scales")(tmp_path / "artifact" / "model")
    with pytest.raises(UserError, match=r"is missing from .*Make .*artifact again, or copy it again as a whole: 'edge"):
        check_candidate(tmp_path / "artifact" / "model")


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        "transformer/config.json",
        "tokenizer/tokenizer.json",
        "scheduler/scheduler_config.json",
        "vae/diffusion_pytorch_model.safetensors",
    ],
)
def test_git_lfs_pointers_are_named(name: str, stage: str, pipeline: Path) -> None:
    (pipeline / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 123\n")
    with pytest.raises(UserError, match=rf"{name} is a git-lfs pointer.*git lfs pull"):
        STAGES[stage](pipeline)
