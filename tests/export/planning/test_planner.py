"""Plans held against reality: files that were exported, memory that a process took, a published formula."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.tiny_families import FLUX, KLEIN, QWEN, SD3, SDXL, write_tiny_family

from edgepress.benchmarks.synthetic import full_size
from edgepress.common.errors import UserError
from edgepress.export.planning.device_plan import DevicePlan, Verdict
from edgepress.export.planning.planner import plan_device
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.pipelines.model_size import adapt_recipe
from edgepress.recipes.loader import load_recipe
from edgepress.recipes.schema import ExportSettings, Recipe
from edgepress.storage.safetensors_header import read_tensor_headers

FP32 = Recipe(device="x86", hardware=load_recipe("x86").hardware, export=ExportSettings(precision="fp32"))
BENCHMARK = Path(full_size.__file__).parents[2] / "docs" / "benchmarks" / "onnx.md"
GENERATE = """
from edgepress.cli.main import main
main(standalone_mode=False)
print(open("/proc/self/status").read())
"""
GENERATE_SEVERAL = """
import sys
from edgepress.runtime.pipeline import ImagePipeline
pipeline = ImagePipeline(sys.argv[1], keep_loaded=True)
for seed in range(3):
    pipeline("a red wall", seed=seed, steps=2, size=(256, 256))
print(open("/proc/self/status").read())
"""


def measure_peak(program: str, *arguments: object) -> int:
    """The most memory that a process held, in bytes."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", result.stdout)[1])  # type: ignore[index]


@pytest.fixture(scope="module")
def demo_plan() -> DevicePlan:
    return plan_device(DEMO_PIPELINE, FP32, memory=8)


def test_bytes_on_disk_are_those_of_the_export(demo_plan: DevicePlan, exported: Path) -> None:
    for component, planned in demo_plan.component_disk_bytes.items():
        written = sum(file.stat().st_size for file in (exported / "onnx").glob(f"{component}-*.safetensors"))
        assert planned == pytest.approx(written, rel=0.05)


def test_peak_memory_is_within_15_percent_of_that_of_generating(
    demo_plan: DevicePlan, exported: Path, tmp_path: Path
) -> None:
    """`generate` has one graph in memory at a time."""
    output = str(tmp_path / "image.png")
    measured = measure_peak(GENERATE, "generate", exported, "--prompt", "a red wall", "--steps", 2, "--output", output)
    assert demo_plan.phased_bytes == pytest.approx(measured, rel=0.15)


def test_peak_memory_of_several_images_is_within_15_percent_with_all_graphs_loaded(exported: Path) -> None:
    """As a server generates them, which runs every graph again."""
    measured = measure_peak(GENERATE_SEVERAL, exported)
    plan = plan_device(DEMO_PIPELINE, FP32, size=(256, 256), memory=8)
    assert plan.resident_bytes == pytest.approx(measured, rel=0.15)


@pytest.mark.slow
def test_a_device_of_little_memory_is_refused_with_remedies() -> None:
    plan = plan_device(DEMO_PIPELINE, FP32, memory=1.13)  # 1 GiB of it is reserved
    assert plan.verdict is Verdict.DOES_NOT_FIT
    assert "It would fit in INT4 (export.precision: int4)." in plan.remedies
    assert plan.remedies[-1] == "It needs a device with 2 GiB of memory."
    with pytest.raises(UserError, match="does not fit on x86"):
        plan.require_fits()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "device"), [(FLUX, "pi5"), (SD3, "orin"), (SDXL, "pi5"), (KLEIN, "orin"), (QWEN, "pi5")]
)
def test_other_families_are_planned_from_configs_alone(name: str, device: str, tmp_path: Path) -> None:
    write_tiny_family(name, tmp_path)
    num_elements = {
        file.parent.name: sum(math.prod(header.shape) for header in read_tensor_headers(file))
        for file in tmp_path.glob("*/*.safetensors")
    }
    for file in tmp_path.glob("*/*.safetensors"):
        file.unlink()
    recipe = load_recipe(device)
    plan = plan_device(tmp_path, recipe, size=(64, 80))
    if name != KLEIN:  # with the graph that reads images to start from, which takes memory and no time of others
        export = recipe.export.model_copy(update={"extra_graphs": ("vae_encoder",)})
        larger = plan_device(tmp_path, recipe.model_copy(update={"export": export}), size=(64, 80))
        (encoder,) = (graph for graph in larger.graphs if graph.name == "vae_encoder")
        assert larger.resident_bytes == plan.resident_bytes + encoder.bytes
        assert larger.component_disk_bytes["vae"] == pytest.approx(
            plan.component_disk_bytes["vae"] + encoder.disk_bytes, abs=1
        )
        assert (encoder.phase, larger.floor_seconds) == ("encoding", plan.floor_seconds)
        plan = larger
    assert plan.verdict is Verdict.FITS
    assert {graph.phase for graph in plan.graphs} == {"encoding", "denoising", "decoding"}
    for component, planned in plan.component_disk_bytes.items():  # no weight is wider than 32 bits, or counted twice
        assert 0 < planned <= 4 * num_elements[component]
    for graph in plan.graphs:  # attention is no convolution, whose weights are in memory twice
        factor = graph.weight_bytes / graph.disk_bytes
        if graph.component == "vae":
            assert factor == pytest.approx(2, rel=0.05)
        elif graph.component == "unet":
            assert 1.25 < factor < 2
        else:
            assert 1 <= factor < 1.25


def test_without_facts_about_the_device_there_is_no_plan() -> None:
    with pytest.raises(UserError, match="no section 'hardware'"):
        plan_device(DEMO_PIPELINE, Recipe(device="x"))


# ---------------------------------------------------------------- full size, from configs alone


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full") / "pipeline"
    full_size.write_pipeline(folder, with_weights=False)
    return folder


@pytest.mark.slow
def test_full_size_operations_and_memory_are_those_of_the_formula_and_of_the_benchmark(full: Path) -> None:
    recipe = adapt_recipe(load_recipe("pi5"), full)
    assert recipe.presets.quality.size == (512, 512)  # of a large model, by its classes
    plan = plan_device(full, recipe)
    transformer = next(graph for graph in plan.graphs if graph.name == "transformer")
    tokens, prompt, dim = 1024, 128, full_size.TRANSFORMER["dim"]
    block = 4 * dim**2 + 3 * dim * int(dim / 3 * 8)  # linear weights: attention and a gated feed-forward
    linear = 2 * block * (30 * (tokens + prompt) + 2 * tokens)
    attention = 4 * dim * (30 * (tokens + prompt) ** 2 + 2 * tokens**2)
    assert transformer.linear_flops == pytest.approx(linear, rel=0.01)  # embedders and modulation are the rest
    assert transformer.other_flops == pytest.approx(attention, rel=0.01)

    measured = re.search(r"peak RSS of loading and running \| ([\d.]+) GB", BENCHMARK.read_text("utf-8"))
    assert measured
    export = recipe.export.model_copy(update={"max_prompt_tokens": 64})  # as `make bench-onnx-full-size` runs it
    small = plan_device(full, recipe.model_copy(update={"export": export}), (256, 256))
    graph = next(graph for graph in small.graphs if graph.name == "transformer")
    assert small.process_bytes + graph.bytes == pytest.approx(float(measured[1]) * 1e9, rel=0.15)
    assert plan.verdict is not Verdict.DOES_NOT_FIT
    assert replace(plan, usable_bytes=3 * 2**30).verdict is Verdict.DOES_NOT_FIT
