"""Memory plans of a tiny pipeline, and of one of full size that has only configs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgepress.benchmarks.synthetic import full_size
from edgepress.cli.main import main
from edgepress.common.errors import UserError
from edgepress.export.graph.source_model import open_source
from edgepress.export.rknn.planning.estimator import MemoryEstimator, assign_domains, plan_rknn
from edgepress.export.rknn.planning.memory_plan import (
    SYSTEM_BYTES,
    Deployment,
    MemoryPlan,
    PartEstimate,
)
from edgepress.export.rknn.planning.partition import DOMAIN_BYTES
from edgepress.recipes.rknn import RknnSettings
from edgepress.recipes.schema import QuantizationSettings, Recipe
from edgepress.runtime.rknn import toolkit as module

GIB = 2**30


def make_recipe(**settings: object) -> Recipe:
    rknn = {"size": [512, 512], "max_prompt_tokens": 128, "build_memory": 12} | settings
    return Recipe.model_validate({"device": "board", "quantize": {"embeddings": "int8"}, "rknn": rknn})


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full") / "pipeline"
    full_size.write_pipeline(folder, with_weights=False)
    assert not list(folder.rglob("*.safetensors"))
    return folder


@pytest.fixture(scope="module")
def plan_16_gib(full: Path) -> MemoryPlan:
    return plan_rknn(full, make_recipe(memory=16, precision="w8a8"))


def get_deployment(plan: MemoryPlan, name: str) -> Deployment:
    return next(deployment for deployment in plan.deployments if deployment.name == name)


def make_part(name: str, size: int) -> PartEstimate:
    return PartEstimate(name, name, False, 0, size - 1, 1, 0, 0)


# ---------------------------------------------------------------- full size


@pytest.mark.slow
def test_a_board_of_16_gib_holds_8_bits_in_domains_and_int4_on_the_cpu(plan_16_gib: MemoryPlan) -> None:
    """Parameters are counted from the classes; one layer of the text encoder, and its embeddings, do not run."""
    npu = get_deployment(plan_16_gib, "NPU, w8a8")
    models = full_size.make_meta_models(full_size.FULL_SHAPES)
    encoder, vae = models["text_encoder"], models["vae"]
    unused = full_size.count_parameters(encoder.layers[-1]) + full_size.count_parameters(encoder.norm)
    unused += full_size.count_parameters(encoder.embed_tokens)
    used = full_size.PARAMETERS["transformer"] + full_size.count_parameters(vae.decoder)
    used += full_size.PARAMETERS["text_encoder"] - unused
    repeated = (
        sum(1 for part in npu.parts if part.graph in ("transformer", "image")) - 1
    )  # each part embeds the timestep
    repeated *= full_size.count_parameters(models["transformer"].t_embedder)
    assert sum(part.parameters for part in npu.parts) == used + repeated
    assert npu.verdict.startswith("research: needs 3 memory domains")
    assert sorted(name for domain in npu.domains for name in domain) == sorted(part.name for part in npu.parts)
    memory = {part.name: part.device_bytes for part in npu.parts}
    assert max(sum(memory[name] for name in domain) for domain in npu.domains) <= DOMAIN_BYTES
    assert npu.peak_bytes == SYSTEM_BYTES + npu.host_bytes + sum(memory.values()) < 16 * GIB
    assert get_deployment(plan_16_gib, "NPU, fp16").verdict.startswith("rejected: needs 2")
    assert get_deployment(plan_16_gib, "CPU, int4, all loaded").verdict == "fits"
    plan_16_gib.require_recipe_fits()
    plan_16_gib.require_any_fits()


@pytest.mark.slow
def test_a_board_of_4_gib_is_rejected(full: Path, tmp_path: Path) -> None:
    path = tmp_path / "board.yaml"
    path.write_text(
        "device: board\nrknn: {target: rk3588, memory: 4, size: [512, 512], max_prompt_tokens: 128, build_memory: 12}\n"
    )
    result = CliRunner().invoke(main, ["export", "rknn", "--recipe", str(path), "--model", str(full), "--plan"])
    assert result.exit_code == 2
    assert "| CPU, int4, one graph at a time | " in result.stdout
    assert result.stderr.startswith("Error: The pipeline does not fit on the rk3588 with 4 GiB: it needs at least ")
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
def test_too_little_memory_to_build_rejects_with_the_reason(full: Path) -> None:
    settings = RknnSettings(size=(512, 512), build_memory=2)
    deployment = MemoryEstimator(open_source(full), settings, QuantizationSettings()).estimate_npu("fp16")
    assert re.search(r"text_encoder: .* Raise rknn\.build_memory", deployment.rejection)
    with pytest.raises(UserError, match=r"Raise rknn\.build_memory.*--plan"):
        MemoryPlan("rk3588", "fp16", 16 * GIB, (512, 512), 96, (deployment,)).require_recipe_fits()


# ---------------------------------------------------------------- small


@pytest.mark.slow
def test_the_demo_is_planned_without_the_toolkit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(module.PYTHON_VARIABLE, str(tmp_path / "none"))
    result = CliRunner().invoke(main, ["export", "rknn", "--recipe", "rk3588-8gb", "--plan"])
    assert result.exit_code == 0, result.stderr
    assert "rk3588 with 8 GiB; images of 128x128 pixels, prompts of up to 96 tokens." in result.stdout
    assert "| text_encoder | CPU, int4 |" in result.stdout
    assert result.stdout.count("| fits |") == 4
    assert list(tmp_path.iterdir()) == []


def test_each_part_goes_to_the_first_domain_with_room() -> None:
    parts = [
        make_part("a", DOMAIN_BYTES // 2),
        make_part("b", DOMAIN_BYTES // 2 + 1),
        make_part("c", DOMAIN_BYTES // 2),
        make_part("d", 5),
    ]
    assert assign_domains(parts) == (("a", "c"), ("b", "d"))


def test_if_no_deployment_fits_the_smallest_is_named() -> None:
    too_large = [
        Deployment(name, (make_part(name, 1),), weight_bytes=size, rejection="too much")
        for name, size in (("a", 9 * GIB), ("b", GIB))
    ]
    plan = MemoryPlan("rk3588", "fp16", GIB, (128, 128), 32, (*too_large, Deployment("c", rejection="cannot be built")))
    with pytest.raises(UserError, match=r"rk3588 with 1 GiB: it needs at least 2\.0 GiB \(b\)"):
        plan.require_any_fits()
    assert "| c | – |" in str(plan)
