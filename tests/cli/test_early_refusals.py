"""What rests on arguments, headers, configs or arithmetic is refused before a large library is imported.

Importing torch alone takes seconds on a small board. Each command runs in a process of its own, forked from one that
has imported the command line, and says which libraries it had imported when it ended.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from helpers.published_artifact import record_model, write_published_artifact
from safetensors.numpy import save_file

from edgepress.storage.layout import Artifact
from edgepress.storage.safetensors_header import read_tensor_headers

HEAVY = ("torch", "diffusers", "transformers", "onnx", "open_clip")
SCRIPT = f"""
import json, os, sys
from edgepress.cli.main import main

def run(arguments):
    try:
        main(arguments, prog_name="edgepress")
    except SystemExit as end:
        return end.code

for arguments in json.load(sys.stdin):
    reading, writing = os.pipe()
    if not os.fork():
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        code = run(arguments)
        print(json.dumps([code, sorted(set({HEAVY}) & set(sys.modules))]), file=sys.stderr, flush=True)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        *message, ending = stream.read().splitlines()
    os.wait()
    print(json.dumps([*json.loads(ending), message[-1] if message else ""]), flush=True)
"""
QUANTIZE = ("quantize", "--recipe", "recipe.yaml", "--model", "pipeline", "--output", "out")
ONNX = ("export", "onnx", "--model", "pipeline", "--output", "out", "--precision", "fp32")
EVALUATE = ("evaluate", "--model", "pipeline", "--candidate", "pipeline", "--output", "out")
CONVERT = ("whole.safetensors", "--base", "pipeline", "--output", "out")
PLACES = ("--model", "pipeline", "--output", "out")
REFUSALS: Sequence[tuple[Sequence[str], str]] = (
    ((*QUANTIZE, "--budget", "1.5bpw"), "1.5 bits per weight are too few"),
    ((*QUANTIZE, "--budget", "1KB"), "the transformer alone takes"),
    ((*QUANTIZE, "--lora", "absent"), "There is no LoRA absent"),
    ((*QUANTIZE, "--lora", "dora.safetensors"), "is a DoRA"),
    ((*QUANTIZE, "--lora", "whole.safetensors"), "is not a LoRA"),
    ((*QUANTIZE, "--lora", "unfit.safetensors"), "of shape (8, 8), but"),
    ((*QUANTIZE, "--lora", "foreign.safetensors"), "is a LoRA for another base model: none of its keys has a layer"),
    ((*QUANTIZE, "--lora", "peft.safetensors"), "Copy adapter_config.json"),
    ((*QUANTIZE, "--lora", "unfit.safetensors", "--lora", "unfit.safetensors:0.5"), "unfit.safetensors:1.5"),
    ((*QUANTIZE, "--lora", "unfit.safetensors", "--lora", "copy/link.safetensors:0.5"), "is given twice"),
    ((*QUANTIZE, "--lora", "unfit.safetensors", "--lora", "copy/same.safetensors"), "is given twice"),
    (("quantize", "--recipe", "recipe.yaml", "--model", "swapped", "--output", "out"), "but it has not"),
    (("quantize", "--recipe", "recipe.yaml", "--model", "quantized", "--output", "out"), "are already quantized (awq)"),
    (("quantize", "--recipe", "recipe.yaml", "--model", "stepwise", "--output", "out"), "takes no shift 'mu'"),
    ((*QUANTIZE, "--reuse", "published"), "A text encoder of published cannot be reused"),
    ((*QUANTIZE, "--reuse", "pipeline"), "Check --reuse"),
    ((*QUANTIZE, "--reuse", "pipeline", "--budget", "8bpw"), "Leave out --reuse"),
    ((*QUANTIZE[:-1], "text"), "text is not a folder"),
    ((*QUANTIZE[:-1], "pipeline/out"), "is inside the model folder"),
    (("quantize", "--recipe", "components.yaml", *PLACES), "has no component 'unet'"),
    (("quantize", "--recipe", "tune.yaml", *PLACES), "nothing to tune"),
    (("quantize", "--recipe", "size.yaml", *PLACES), "calibration.size"),
    (("quantize", "--recipe", "recipe.yaml", "--model", "fp4", "--output", "out"), "F4"),
    ((*ONNX, "--extra-graph", "typo"), "has no optional graph 'typo'"),
    ((*ONNX, "--size", "72x72", "--no-check"), "Invalid image size 72x72"),
    (("export", "onnx", "--output", "changed", "--precision", "fp32"), "was changed since it was quantized"),
    (("export", "onnx", "--model", "swapped", *ONNX[4:]), "but it has not"),
    ((*ONNX, "--opset", "10"), "Choose an opset"),
    ((*ONNX[:-1], "int4"), "has no INT4 weights"),
    ((*ONNX[:-1], "w8a8"), "has no INT8 solution"),
    ((*ONNX[:-1], "w8a8", "--format", "qdq", "--activations", "dynamic"), "Choose static ones"),
    (("export", "onnx", "--model", "scheduled", *ONNX[4:]), "use_karras_sigmas"),
    (("export", "onnx", "--model", "absent", *ONNX[4:]), "absent"),
    (("export", "rknn", "--recipe", "recipe.yaml", *PLACES), "has no section 'rknn'"),
    (("export", "rknn", "--recipe", "rknn.yaml", *PLACES, "--component", "typo"), ""),  # or there is no toolkit
    (("export", "gguf", *PLACES, "--component", "typo"), "'typo' cannot be exported to GGUF"),
    (("export", "gguf", *PLACES), "has no INT4 weights"),
    (("export", "gguf", *PLACES, "--type", "q8_0"), "has no 8-bit solution"),
    (("export", "comfyui", *PLACES), "has no INT4 weights"),
    (("export", "compressed-tensors", *PLACES), "no text encoder with INT4 weights"),
    (("export", "diffusers", *PLACES), "has no INT4 weights"),
    ((*EVALUATE[:4], "changed/model", *EVALUATE[5:]), "was changed: it has another SHA-256"),
    ((*EVALUATE[:4], "swapped", *EVALUATE[5:]), "but it has not"),
    ((*EVALUATE[:4], "stepwise", *EVALUATE[5:]), "takes no shift 'mu'"),
    ((*EVALUATE, "--history", "text"), "text is not a valid evaluation history"),
    ((*EVALUATE, "--history", "foreign.sqlite"), "it has no table points, but songs"),
    ((*EVALUATE, "--metric", "typo"), "Unknown metric 'typo'"),
    ((*EVALUATE, "--ground-truth", "empty"), "Give --ground-truth"),
    ((*EVALUATE, "--baseline", "text"), "text"),
    (("compare", "pipeline", "--model", "pipeline", "--metric", "typo"), "Unknown metric 'typo'"),
    (("convert", "whole.safetensors", "--base", "pipeline", "--output", "out", "--component", "typo"), "'typo'"),
    (("convert", "whole.safetensors", "--base", "pipeline", "--output", "out"), "it has 16 weights"),
    (("convert", *CONVERT, "--component", "text_encoder"), "'text_encoder' that diffusers reads from single files"),
    (("convert", "broken.safetensors", "--base", "pipeline", "--output", "out"), "broken.safetensors"),
    (("plan", "--recipe", "pi5", "--model", "pipeline", "--size", "1x1"), "Invalid image size 1x1"),
    (("plan", "--recipe", "pi5", "--model", "pipeline", "--memory", "0.0001"), "0.0001 GiB of memory are no more"),
    (("plan", "--recipe", "pi5", "--model", "swapped"), "but it has not"),
    (("generate", "artifact", "--prompt", "a cat", "--output", "a.png", "--size", "1x1"), "Invalid image size 1x1"),
    (("info", "text"), "text is a"),
)


@pytest.fixture(scope="module")
def places(lean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands name."""
    folder = tmp_path_factory.mktemp("places")
    shutil.copytree(lean, folder / "pipeline")
    write_published_artifact(folder / "artifact")
    (folder / "empty").mkdir()
    (folder / "text").write_text("mine")
    shutil.copytree(lean, folder / "scheduled")
    scheduler = folder / "scheduled" / "scheduler" / "scheduler_config.json"
    scheduler.write_text(json.dumps(json.loads(scheduler.read_text()) | {"use_karras_sigmas": True}))
    shutil.copytree(lean, folder / "fp4")
    weights = folder / "fp4" / "transformer" / "diffusion_pytorch_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content.replace(b'"dtype":"F32"', b'"dtype":"F4" ', 1))
    recipe = {
        "device": "test",
        "quantize": {"method": "rtn", "scheme": {"group_size": 32}},
        "calibration": {"count": 1},
    }
    changes = {
        "recipe": {},
        "components": {"quantize": {"components": ["unet"]}},
        "tune": {"quantize": {"components": ["text_encoder"], "tune": 10}},
        "size": {"calibration": {"size": [72, 72]}},
        "rknn": {"rknn": {"target": "rk3588", "precision": "fp16"}},
    }
    for name, change in changes.items():
        (folder / f"{name}.yaml").write_text(json.dumps(recipe | change))
    save_file({"layers.0.lora_magnitude_vector": np.zeros(4, np.float32)}, folder / "dora.safetensors")
    save_file({"layers.0.weight": np.zeros((4, 4), np.float32)}, folder / "whole.safetensors")
    _write_loras(folder)
    _write_damaged_pipelines(folder)
    (folder / "broken.safetensors").write_bytes((folder / "whole.safetensors").read_bytes()[:20])
    with sqlite3.connect(folder / "foreign.sqlite") as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    return folder


def _write_loras(folder: Path) -> None:
    for name, layer in {
        "unfit": "transformer.layers.0.attention.to_q",
        "foreign": "transformer.blocks.0.attn.qq",
        "peft": "base_model.model.layers.0.attention.to_q",
    }.items():
        factors = {f"{layer}.lora_A.weight": np.ones((2, 8)), f"{layer}.lora_B.weight": np.ones((8, 2))}
        save_file({key: value.astype(np.float32) for key, value in factors.items()}, folder / f"{name}.safetensors")
    (folder / "copy").mkdir()
    shutil.copy(folder / "unfit.safetensors", folder / "copy" / "same.safetensors")
    (folder / "copy" / "link.safetensors").symlink_to(folder / "unfit.safetensors")


def _write_damaged_pipelines(folder: Path) -> None:
    """Writes pipelines, each with something that names, headers or hashes show."""
    for name in ("swapped", "quantized", "stepwise", "published/model"):
        shutil.copytree(folder / "pipeline", folder / name)
    record_model(Artifact(folder / "published"))
    shutil.copytree(folder / "published", folder / "changed")
    weights = folder / "changed" / "model" / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + bytes([weights.read_bytes()[-1] ^ 1]))
    transformer = folder / "swapped" / "transformer"
    weights = transformer / "diffusion_pytorch_model.safetensors"
    names = [header.name for header in read_tensor_headers(weights)]
    shards = [transformer / f"diffusion_pytorch_model-{number:05}-of-00002.safetensors" for number in (1, 2)]
    index = {name: shards[number % 2].name for number, name in enumerate(names)}
    (transformer / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    weights.rename(shards[0])
    save_file({"other": np.zeros(1, np.float32)}, shards[1])
    for file, change in {
        "quantized/text_encoder/config.json": {"quantization_config": {"quant_method": "awq", "bits": 4}},
        "stepwise/scheduler/scheduler_config.json": {"_class_name": "DDIMScheduler"},
        "stepwise/model_index.json": {"scheduler": ["diffusers", "DDIMScheduler"]},
    }.items():
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(content | change))


@pytest.mark.slow
def test_refusals_come_before_large_libraries_are_imported(places: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps([arguments for arguments, _ in REFUSALS]),
        cwd=places,
        capture_output=True,
        text=True,
        check=True,
    )
    endings = [json.loads(line) for line in process.stdout.splitlines()]
    wrong = [
        f"{' '.join(arguments)}: exit code {code}, imported {loaded}: {message}"
        for (arguments, expected), (code, loaded, message) in zip(REFUSALS, endings, strict=True)
        if code != 2 or loaded or expected not in message
    ]
    assert wrong == []
    assert not (places / "out").exists()
