"""What is missing or damaged in a pipeline folder is known before any weight is read."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.tiny import edit_weights

import edgepress
from edgepress.api.folder_info import PipelineInfo
from edgepress.common.errors import UserError
from edgepress.export.graph.preflight import check_export
from edgepress.export.graph.source_model import open_source
from edgepress.export.planning.planner import plan_device
from edgepress.models.registry import get_family
from edgepress.pipelines.component_libraries import check_library
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.pipelines.preflight import check_host, check_images, check_pipeline, check_weight_formats


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    """The demo's folder, which a test may change."""
    shutil.copytree(DEMO_PIPELINE, tmp_path / "pipeline")
    return tmp_path / "pipeline"


def edit_json(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text("utf-8")) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}), "utf-8")


@pytest.mark.parametrize("folder", ["tiny", "demo"])
def test_complete_pipelines_pass(tiny: Path, folder: str) -> None:
    check_pipeline({"tiny": tiny, "demo": DEMO_PIPELINE}[folder])


@pytest.mark.parametrize(
    "missing",
    [
        "text_encoder", "text_encoder/config.json", "text_encoder/model.safetensors", "tokenizer",
        "tokenizer/tokenizer.json", "scheduler", "scheduler/scheduler_config.json", "vae", "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors", "transformer", "transformer/config.json",
    ],
)  # fmt: skip
def test_whatever_is_missing_is_named(pipeline: Path, missing: str) -> None:
    path = pipeline / missing
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(UserError, match=rf"{missing.split('/')[0]}.* (Download the model again\.|if it is gated)"):
        check_pipeline(pipeline)


def test_what_edgepress_made_is_not_downloaded_again(pipeline: Path) -> None:
    artifact = pipeline.parent
    pipeline = pipeline.rename(artifact / "model")
    (artifact / "manifest.json").write_text('{"schema_version": 3, "prompts_sha256": "0", "files": []}')
    shutil.rmtree(pipeline / "transformer")
    with pytest.raises(
        UserError, match=rf"There is no folder .*transformer.*\. Make {artifact} again, or copy it again"
    ):
        check_pipeline(pipeline)


@pytest.mark.parametrize("name", ["text_encoder", "transformer", "vae", "scheduler", "tokenizer"])
@pytest.mark.parametrize("entry", [..., [None, None], []])
def test_a_component_that_is_not_listed(pipeline: Path, name: str, entry: Any) -> None:
    edit_json(pipeline / "model_index.json", **{name: entry})
    with pytest.raises(UserError, match=rf"model_index\.json does not list the component '{name}'"):
        check_pipeline(pipeline)


@pytest.mark.parametrize("entry", [["diffusers"], [1, 2], [], ["", "AutoencoderKL"], ["diffusers", " "]])
def test_a_listed_component_without_a_class(pipeline: Path, entry: list[Any]) -> None:
    edit_json(pipeline / "model_index.json", extra=entry)
    with pytest.raises(UserError, match="has no library and class for 'extra'"):
        check_pipeline(pipeline)


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("tokenizer", "x"),
        ("scheduler", "x"),
        ("transformer", "x.y"),
        ("vae", "."),
        ("vae", "diffusers "),
        ("vae", "\0"),
    ],
)
def test_an_unknown_library_is_named(pipeline: Path, name: str, library: str) -> None:
    class_name = json.loads((pipeline / "model_index.json").read_text("utf-8"))[name][1]
    edit_json(pipeline / "model_index.json", **{name: [library, class_name]})
    with pytest.raises(UserError, match=rf"model_index\.json names the library '.*' for '{name}', which is not inst"):
        check_pipeline(pipeline)


def test_libraries_besides_the_usual_ones(pipeline: Path) -> None:
    """An installed one, a module of diffusers' pipelines, and code in the component's folder."""
    for name, library in (("json", "json"), ("safety", "stable_diffusion"), ("guard", "own_code")):
        (pipeline / name).mkdir()
        edit_json(pipeline / "model_index.json", **{name: [library, "SomeClass"]})
    (pipeline / "guard" / "own_code.py").write_text("")
    check_pipeline(pipeline)


@pytest.mark.parametrize(("name", "library"), [("tokenizer", "diffusers"), ("scheduler", "transformers")])
def test_the_wrong_one_of_the_two_libraries(pipeline: Path, name: str, library: str) -> None:
    class_name = json.loads((pipeline / "model_index.json").read_text("utf-8"))[name][1]
    edit_json(pipeline / "model_index.json", **{name: [library, class_name]})
    with pytest.raises(UserError, match=f"library '{library}' for '{name}', but a '{class_name}' is of"):
        check_pipeline(pipeline)


@pytest.mark.parametrize("length", [-1, 0, 1.5, "x", True])
def test_impossible_lengths_of_prompts(pipeline: Path, length: Any) -> None:
    edit_json(pipeline / "tokenizer" / "tokenizer_config.json", model_max_length=length)
    with pytest.raises(UserError, match=r"tokenizer_config\.json: model_max_length = .*: it must be a whole number of"):
        check_pipeline(pipeline)


@pytest.mark.parametrize("length", [None, 77, int(1e30), ...])
def test_possible_lengths_of_prompts(pipeline: Path, length: Any) -> None:
    """transformers writes 1e30 for no limit."""
    edit_json(pipeline / "tokenizer" / "tokenizer_config.json", model_max_length=length)
    check_pipeline(pipeline)


def test_a_list_of_numbers_is_an_argument_of_a_class_that_nobody_described(pipeline: Path) -> None:
    edit_json(pipeline / "model_index.json", _class_name="Krea2Pipeline", text_encoder_select_layers=[2, 5])
    check_pipeline(pipeline)


@pytest.mark.parametrize(("name", "shown"), [("AutoencoderTiny", "AutoencoderTiny"), ("\n", r"\\n")])
def test_another_vae(pipeline: Path, name: str, shown: str) -> None:
    edit_json(pipeline / "vae" / "config.json", _class_name=name)
    with pytest.raises(UserError, match=rf"config\.json describes an? '{shown}', but .* names an AutoencoderKL"):
        check_pipeline(pipeline)


def test_another_scheduler(pipeline: Path) -> None:
    edit_json(pipeline / "model_index.json", scheduler=["diffusers", "UniPCMultistepScheduler"])
    with pytest.raises(UserError, match=r"describes a 'FlowMatchEuler\w+', but .* names a UniPCMultistepScheduler"):
        check_pipeline(pipeline)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template, chat_template.jinja, which a ZImagePipeline needs"),
        (b"{% for message in messages %}", r"is not a chat template \(.*endfor"),
        (b"\xff", "is not UTF-8"),
        (b"{{ 1 / 0 }}", r"rejects a prompt \(division by zero\)"),
        (b"{{ raise_exception('no users') }}", r"rejects a prompt \(no users\)"),
        (b"{% for i in range(10 ** 9) %}x{% endfor %}", "rejects a prompt"),
        (b"a cat", "leaves the prompt out"),
    ],
)
def test_chat_templates(pipeline: Path, template: bytes | None, message: str) -> None:
    edit_json(pipeline / "tokenizer" / "tokenizer_config.json", chat_template=...)
    file = pipeline / "tokenizer" / "chat_template.jinja"
    if template is None:
        file.unlink(missing_ok=True)
    else:
        file.write_bytes(template)
    with pytest.raises(UserError, match=rf"{message}.* (Download the model again\.|if it is gated)"):
        check_pipeline(pipeline)


@pytest.mark.parametrize(
    "file", ["vae/config.json", "scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json"]
)
@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000])
def test_corrupt_json(pipeline: Path, file: str, text: str) -> None:
    (pipeline / file).write_text(text)
    with pytest.raises(UserError, match=file):
        check_pipeline(pipeline)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("shift", None),
        ("shift", 0),
        ("shift", -3),
        ("num_train_timesteps", 0),
        ("num_train_timesteps", "1000"),
        ("use_dynamic_shifting", "yes"),
        ("base_shift", 1e308),
    ],
)
def test_values_that_make_no_schedule(pipeline: Path, key: str, value: Any) -> None:
    """diffusers fails at the first image, or makes noise of it."""
    edit_json(pipeline / "scheduler" / "scheduler_config.json", **{key: value})
    with pytest.raises(UserError, match=f"Invalid scheduler config: {key} = .*: it must be"):
        check_pipeline(pipeline)


def test_an_option_that_only_diffusers_has_is_refused_where_graphs_are_run(
    pipeline: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By the same sentence everywhere, while the pipeline itself is fine."""
    file = pipeline / "scheduler" / "scheduler_config.json"
    edit_json(file, use_karras_sigmas=True, shift_terminal=..., shfit_terminal=0.1)
    check_pipeline(pipeline)
    expected = f"{file}: Unsupported scheduler option use_karras_sigmas = true. Remove it, or "
    info = edgepress.info(pipeline)
    assert isinstance(info, PipelineInfo)
    assert info.supported == ("quantize",)
    assert info.export_problem.startswith(expected)
    assert f"It cannot be exported. {expected}" in str(info)
    source = open_source(pipeline)
    for use in (
        lambda: plan_device(pipeline, edgepress.load_recipe("pi5")),
        lambda: check_export(source, tmp_path / "artifact" / "onnx"),
    ):
        with pytest.raises(UserError, match=re.escape(expected)):
            use()
        assert f"{file}: the key 'shfit_terminal' is ignored; did you mean 'shift_terminal'?" in caplog.text
        caplog.clear()


def test_a_missing_shard(pipeline: Path) -> None:
    index = pipeline / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(
        json.dumps({"weight_map": {"a": "diffusion_pytorch_model.safetensors", "b": "second.safetensors"}})
    )
    with pytest.raises(UserError, match=r"second\.safetensors is missing"):
        check_pipeline(pipeline)


def test_a_class_that_edgepress_does_not_know_is_checked_too(pipeline: Path) -> None:
    edit_json(pipeline / "model_index.json", _class_name="AnotherPipeline")
    check_pipeline(pipeline)
    shutil.rmtree(pipeline / "vae")
    with pytest.raises(UserError, match=r"There is no folder .*vae"):
        check_pipeline(pipeline)


def test_an_absent_text_encoder_may_be_gated(pipeline: Path) -> None:
    shutil.rmtree(pipeline / "text_encoder")
    with pytest.raises(
        UserError, match=r"There is no folder .*text_encoder.*\. Download it .* if it is gated, ask for"
    ):
        check_pipeline(pipeline)


# ---------------------------------------------------------------- images


@pytest.mark.parametrize("size", [(1024, 1024), (16, 1024), (128, 128)])
def test_sizes_of_the_demo(size: tuple[int, int]) -> None:
    check_images(DEMO_PIPELINE, *size)


@pytest.mark.parametrize(
    ("size", "reason"), [((1040, 128), "position tables end at 1024x1024"), ((100, 128), "multiples of 16")]
)
def test_sizes_that_the_demo_does_not_support(size: tuple[int, int], reason: str) -> None:
    with pytest.raises(UserError, match=f"Invalid image size {size[0]}x{size[1]}: .*{reason}"):
        check_images(DEMO_PIPELINE, *size)


@pytest.mark.parametrize("channels", [[None, 64], "wide", [{}]])
def test_configs_that_do_not_describe_the_model(pipeline: Path, channels: Any) -> None:
    edit_json(pipeline / "vae" / "config.json", block_out_channels=channels)
    with pytest.raises(UserError, match=f"The configs in {pipeline} do not describe a ZImagePipeline"):
        check_images(pipeline, 64, 64)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shift_factor", None),
        ("scaling_factor", None),
        ("scaling_factor", 0),
        ("scaling_factor", "1"),
        ("shift_factor", True),
        ("block_out_channels", []),
    ],
)
def test_factors_that_would_make_black_images(pipeline: Path, name: str, value: Any) -> None:
    edit_json(pipeline / "vae" / "config.json", **{name: value})
    with pytest.raises(UserError, match=rf"a value is missing or invalid \((vae: )?{name} (is|=) "):
        check_images(pipeline, 64, 64)
    with pytest.raises(UserError, match=rf"a value is missing or invalid \((vae: )?{name} (is|=) "):
        check_host(pipeline, get_family("ZImagePipeline"))


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        (WEIGHTS, "diffusion_pytorch_model.safetensors is a git-lfs pointer"),
        ("vae/config.json", "config.json is a git-lfs pointer"),
        ("tokenizer/tokenizer.json", "tokenizer.json is a git-lfs pointer"),
    ],
)
def test_plan_says_of_files_what_the_work_would_say(pipeline: Path, file: str, reason: str) -> None:
    (pipeline / file).write_text(POINTER)
    with pytest.raises(UserError, match=reason):
        edgepress.plan("orin", model=pipeline)
    with pytest.raises(UserError, match=reason):
        check_weight_formats(pipeline)


def test_plan_does_not_plan_weights_that_are_not_read(pipeline: Path) -> None:
    with edit_weights(pipeline / "transformer") as tensors:
        tensors["layers.0.feed_forward.w2.weight"] = tensors["layers.0.feed_forward.w2.weight"].char()
    with pytest.raises(UserError, match="has the dtype I8: it is quantized"):
        edgepress.plan("orin", model=pipeline)


@pytest.mark.parametrize(
    ("lengths", "reason"),
    [
        ([64, 64], r"axes_lens is \[64, 64\] instead of three positive whole numbers"),
        ([256, 0, 64], r"axes_lens is \[256, 0, 64\] instead of three positive whole numbers"),
        ([256, -64, 64], r"axes_lens is \[256, -64, 64\] instead of three"),
        ([256, 64.5, 64], r"axes_lens is \[256, 64.5, 64\] instead of three"),
        ("abc", "axes_lens is 'abc' instead of three"),
        ([33, 64, 64], "the position tables leave no token for a prompt"),
        ([1, 64, 64], "the position tables leave no token for a prompt"),
    ],
)
def test_position_tables_that_are_too_short(
    pipeline: Path, lengths: Any, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All commands say the same of them, before any work."""
    monkeypatch.chdir(tmp_path)
    edit_json(pipeline / "transformer" / "config.json", axes_lens=lengths)
    with pytest.raises(UserError, match=reason) as refusal:
        check_pipeline(pipeline)
    calls = (
        lambda: edgepress.quantize("pi5", model=pipeline, output="out"),
        lambda: edgepress.export_onnx(model=pipeline, output="out", precision="fp32"),
        lambda: edgepress.plan("orin", model=pipeline),
        lambda: edgepress.plan_rknn("rk3588", model=pipeline),
        lambda: edgepress.export_gguf(model=pipeline, output="out"),
    )
    for call in calls:
        with pytest.raises(UserError) as again:
            call()
        assert str(again.value) == str(refusal.value)
    description = edgepress.info(pipeline)
    assert isinstance(description, PipelineInfo)
    assert description.problem == str(refusal.value)
    assert list(tmp_path.iterdir()) == [pipeline]


@pytest.mark.slow
def test_it_takes_less_than_two_seconds_and_imports_no_torch(tmp_path: Path) -> None:
    """Of a pipeline with sparse files of 64 GB."""
    shutil.copytree(DEMO_PIPELINE, tmp_path / "pipeline")
    os.truncate(tmp_path / "pipeline" / "transformer" / "diffusion_pytorch_model.safetensors", 64 * 10**9)
    code = (
        "import sys; from pathlib import Path; from edgepress.pipelines.preflight import check_images, check_pipeline; "
        "check_pipeline(Path(sys.argv[1])); check_images(Path(sys.argv[1]), 128, 128); "
        "assert not {'torch', 'diffusers'} & set(sys.modules)"
    )
    started = time.monotonic()
    process = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "pipeline")], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("architectures", [-1, "x", [], [None], {}, True])
def test_a_config_that_names_no_class_of_transformers_is_described(pipeline: Path, architectures: Any) -> None:
    edit_json(pipeline / "text_encoder" / "config.json", architectures=architectures)
    info = edgepress.info(pipeline, layers=True)
    assert isinstance(info, PipelineInfo)


@pytest.mark.parametrize(("component", "key"), [("vae", "scaling_factor"), ("transformer", "axes_dims")])
def test_a_misspelt_key_is_named_with_its_file(pipeline: Path, component: str, key: str) -> None:
    file = pipeline / component / "config.json"
    config = json.loads(file.read_text())
    config[f"{key}s"] = config.pop(key)
    file.write_text(json.dumps(config))
    with pytest.raises(UserError, match=f"{component}/config.json lacks the key '{key}', but has the key '{key}s'"):
        check_images(pipeline, 64, 64)


@pytest.mark.parametrize(
    ("name", "class_name"),
    [
        ("tokenizer", "Qwen2Tokenizr"),
        ("scheduler", "FlowMatchScheduler"),
        ("text_encoder", "Qwen3Modle"),
        ("vae", "Vae"),
    ],
)
def test_an_unknown_class_is_refused_without_importing_its_library(pipeline: Path, name: str, class_name: str) -> None:
    library = json.loads((pipeline / "model_index.json").read_text("utf-8"))[name][0]
    edit_json(pipeline / "model_index.json", **{name: [library, class_name]})
    message = f"names a '{class_name}' for '{name}', but {library} [0-9.]+ has no such class"
    with pytest.raises(UserError, match=rf"model_index\.json {message}"):
        check_pipeline(pipeline)


@pytest.mark.parametrize(
    ("name", "class_name", "library"),
    [("vae", "AutoencoderSuper", "diffusers"), ("text_encoder", "SuperTextModel", "transformers")],
)
def test_the_release_that_has_a_class_is_named(pipeline: Path, name: str, class_name: str, library: str) -> None:
    edit_json(pipeline / "model_index.json", **{name: [library, class_name]}, _diffusers_version="99.1")
    edit_json(pipeline / name / "config.json", transformers_version="99.1")
    with pytest.raises(
        UserError, match=rf"has no such class; it was saved with {library} 99\.1\. Correct the name, or"
    ):
        check_pipeline(pipeline)


def test_names_that_no_file_can_have_are_refused(pipeline: Path) -> None:
    edit_json(pipeline / "model_index.json", vae=["x" * 300, "AutoencoderKL"])
    with pytest.raises(UserError, match=r"names the library 'x{60}…' for 'vae', which is not installed"):
        check_pipeline(pipeline)
    edit_json(pipeline / "model_index.json", **{"vae": ["diffusers", "AutoencoderKL"], "y" * 300: ["diffusers", "X"]})
    with pytest.raises(UserError, match=r"names the component 'y{60}…', which can be no folder in it"):
        check_pipeline(pipeline)
    info = edgepress.info(pipeline)
    assert isinstance(info, PipelineInfo)
    assert "which can be no folder" in info.problem


@pytest.mark.parametrize(
    "name",
    [
        "AutoTokenizer",
        "PreTrainedTokenizerFast",
        "Qwen2TokenizerFast",
        "T5TokenizerFast",
        "CLIPImageProcessorFast",
        "Qwen2_5_VLForConditionalGeneration",
        "UMT5EncoderModel",
        "CLIPTextModelWithProjection",
    ],
)
def test_classes_and_old_names_of_transformers_are_known(pipeline: Path, name: str) -> None:
    check_library(pipeline / "other", "transformers", name)


@pytest.mark.parametrize(
    ("component", "key", "value"),
    [("vae", "scaling_factor", -1), ("transformer", "t_scale", 1e30), ("text_encoder", "rms_norm_eps", 1e30)],
)
def test_numbers_that_no_model_has_are_refused(pipeline: Path, component: str, key: str, value: float) -> None:
    edit_json(pipeline / component / "config.json", **{key: value})
    with pytest.raises(UserError, match=rf"{component}/config\.json: {key} = .*: it must be from .*Download"):
        check_pipeline(pipeline)
