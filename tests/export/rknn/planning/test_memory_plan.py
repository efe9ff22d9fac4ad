"""Plans: what they say of a tiny pipeline and of one of full size, of which there are configs alone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgepress.benchmarks.synthetic import full_size
from edgepress.cli.main import main
from edgepress.common.errors import UserError
from edgepress.export.graph.source_model import open_source
from edgepress.export.rknn.planning.memory_plan import (
    SYSTEM_BYTES,
    Deployment,
    MemoryEstimator,
    MemoryPlan,
    PartEstimate,
    assign_domains,
    make_memory_plan,
)
from edgepress.export.rknn.planning.partition import DOMAIN_BYTES
from edgepress.export.rknn.planning.plan_report import render_plan
from edgepress.recipes.schema import Recipe, RknnSettings
from edgepress.runtime.rknn import toolkit as module

GIB = 2**30


def make_recipe(**settings: object) -> Recipe:
    rknn = {"size": [512, 512], "tokens": 128, "build_memory": 12} | settings
    return Recipe.model_validate({"device": "board", "quantize": {"embeddings": "int8"}, "rknn": rknn})


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full") / "pipeline"
    full_size.write_pipeline(folder, with_weights=False)
    assert not list(folder.rglob("*.safetensors"))
    return folder


@pytest.fixture(scope="module")
def sixteen(full: Path) -> MemoryPlan:
    return make_memory_plan(open_source(full), make_recipe(memory=16, precision="w8a8"))


def get_deployment(found: MemoryPlan, name: str) -> Deployment:
    return next(way for way in found.deployments if way.name == name)


def make_part(name: str, size: int) -> PartEstimate:
    return PartEstimate(name, name, False, 0, size - 1, 1, 0, 0)


# ---------------------------------------------------------------- full size


@pytest.mark.slow
def test_a_board_of_16_gib_holds_8_bits_in_domains_and_int4_on_the_cpu(sixteen: MemoryPlan) -> None:
    """Parameters are counted from the classes; one layer of the text encoder, and its embeddings, are not run."""
    npu = get_deployment(sixteen, "NPU, w8a8")
    models = full_size.make_meta_models(full_size.FULL_SHAPES)
    encoder, vae = models["text_encoder"], models["vae"]
    left_out = full_size.count_parameters(encoder.layers[-1]) + full_size.count_parameters(encoder.norm)
    left_out += full_size.count_parameters(encoder.embed_tokens)
    run = full_size.PARAMETERS["transformer"] + full_size.count_parameters(vae.decoder)
    run += full_size.PARAMETERS["text_encoder"] - left_out
    again = sum(1 for part in npu.parts if part.graph in ("transformer", "image")) - 1  # each embeds the time
    again *= full_size.count_parameters(models["transformer"].t_embedder)
    assert sum(part.parameters for part in npu.parts) == run + again
    assert npu.verdict.startswith("research: its 3 memory domains")
    assert sorted(name for domain in npu.domains for name in domain) == sorted(part.name for part in npu.parts)
    memory = {part.name: part.device_bytes for part in npu.parts}
    assert max(sum(memory[name] for name in domain) for domain in npu.domains) <= DOMAIN_BYTES
    assert npu.peak_bytes == SYSTEM_BYTES + npu.host_bytes + sum(memory.values()) < 16 * GIB
    assert get_deployment(sixteen, "NPU, fp16").verdict.startswith("refused: 2")
    assert get_deployment(sixteen, "CPU, int4, all loaded").verdict == "fits"
    sixteen.require_recipe_fits()
    sixteen.require_any_fits()


@pytest.mark.slow
def test_a_board_of_4_gib_is_refused(full: Path, tmp_path: Path) -> None:
    path = tmp_path / "board.yaml"
    path.write_text(
        "device: board\nrknn: {target: rk3588, memory: 4, size: [512, 512], tokens: 128, build_memory: 12}\n"
    )
    result = CliRunner().invoke(main, ["export", "rknn", "--recipe", str(path), "--model", str(full), "--plan"])
    assert result.exit_code == 2
    assert "| CPU, int4, one graph at a time | " in result.stdout
    assert result.stderr.startswith("Error: rk3588 with 4 GiB cannot hold this pipeline: it takes ")
    assert result.stderr.count("\n") == 1


def test_what_cannot_be_built_in_the_memory_that_is_given_is_refused_with_the_reason(full: Path) -> None:
    scales = MemoryEstimator(open_source(full), Recipe(device="board"), RknnSettings(size=(512, 512), build_memory=2))
    found = scales.estimate_npu("fp16")
    assert re.search(r"text_encoder: .* raise rknn\.build_memory", found.rejection)
    with pytest.raises(UserError, match=r"raise rknn\.build_memory.*--plan"):
        MemoryPlan("rk3588", "fp16", 16 * GIB, (512, 512), 96, (found,)).require_recipe_fits()


# ---------------------------------------------------------------- small


def test_the_demo_is_planned_without_the_toolkit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(module.PYTHON_VARIABLE, str(tmp_path / "none"))
    result = CliRunner().invoke(main, ["export", "rknn", "--recipe", "rk3588-8gb", "--plan"])
    assert result.exit_code == 0, result.stderr
    assert "rk3588 with 8 GiB; pictures of 128x128 pixels, prompts of up to 96 tokens." in result.stdout
    assert "| text_encoder | CPU, int4 |" in result.stdout
    assert result.stdout.count("| fits |") == 4
    assert list(tmp_path.iterdir()) == []


def test_domains_are_filled_in_order() -> None:
    parts = [
        make_part("a", DOMAIN_BYTES // 2),
        make_part("b", DOMAIN_BYTES // 2 + 1),
        make_part("c", DOMAIN_BYTES // 2),
        make_part("d", 5),
    ]
    assert assign_domains(parts) == (("a", "c"), ("b", "d"))


def test_the_least_way_is_named_where_none_fits() -> None:
    ways = [
        Deployment(name, (make_part(name, 1),), weight_bytes=size, rejection="too much")
        for name, size in (("a", 9 * GIB), ("b", GIB))
    ]
    found = MemoryPlan("rk3588", "fp16", GIB, (128, 128), 32, (*ways, Deployment("c", rejection="cannot be built")))
    with pytest.raises(UserError, match=r"rk3588 with 1 GiB .* takes 2\.0 GiB at the least \(b\)"):
        found.require_any_fits()
    assert "| c | – |" in render_plan(found)
