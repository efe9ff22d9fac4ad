"""Candidates that others made: single files, quantized pipelines and servers, judged with the same prompts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.image_server import run_image_server
from helpers.single_files import read_component, use_original_names, write_gguf
from rich.console import Console

from edgepress.common.errors import UserError
from edgepress.evaluate.evaluator import run_evaluation
from edgepress.evaluate.plan import EvaluationOptions, EvaluationPlan, plan_evaluation
from edgepress.evaluate.report import html, markdown, terminal
from edgepress.evaluate.results.locations import name_location
from edgepress.prompts.prompt import Prompt, save_prompts
from edgepress.recipes.schema import EvaluationSettings, Recipe

RECIPE = Recipe(device="custom", evaluation=EvaluationSettings(count=2, steps=2, guidance=0.0, gates={"psnr_min": 30}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, prompts: tuple[Prompt, ...]) -> Iterator[Path]:
    """The current folder of all runs, which share a cache."""
    path = tmp_path_factory.mktemp("referee")
    save_prompts(prompts[:2], path / "set.jsonl")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(path)
        yield path


def make_plan(reference: Path, folder: Path, *candidates: str) -> EvaluationPlan:
    options = EvaluationOptions(
        model=str(reference), candidates=candidates, prompts=str(folder / "set.jsonl"), metrics=("psnr", "text")
    )
    return plan_evaluation(RECIPE, replace(options, output=folder / "out"))


def test_a_file_with_the_weights_of_the_reference_gives_its_images(reference: Path, folder: Path) -> None:
    weights = use_original_names(read_component(reference / "transformer"))
    exact = write_gguf(weights, folder / "exact.gguf")
    coarse = write_gguf(weights, folder / "coarse.gguf", kind="Q4_0")
    plan = make_plan(reference, folder, f"transformer:{exact}", f"transformer:{coarse}")
    results = run_evaluation(plan)
    assert [results.variants[name].num_identical for name in ("exact", "coarse")] == [2, 0]
    system = results.identity.variants["coarse"]
    rest = sum((reference / name).stat().st_size for name in _weight_files(reference) if "transformer" not in name)
    assert (system.formats, system.folder.path) == ({"transformer": "gguf"}, name_location(coarse))
    assert system.weight_bytes == coarse.stat().st_size + rest
    assert system.bits_per_weight is not None
    assert results.identity.reference.bits_per_weight == pytest.approx(32, rel=0.01)
    assert system.bits_per_weight < 32
    assert results.costs["coarse"].seconds.count == 2
    assert run_evaluation(plan).costs == results.costs  # of the cached images


def _weight_files(pipeline: Path) -> list[str]:
    return [str(file.relative_to(pipeline)) for file in pipeline.rglob("*.safetensors")]


def test_a_server_with_its_own_noise_is_judged_by_quality_alone(reference: Path, folder: Path) -> None:
    with run_image_server() as (url, requests):
        results = run_evaluation(make_plan(reference, folder, f"board={url}"))
        assert len(requests) == 2
        run_evaluation(make_plan(reference, folder, f"board={url}"))
        assert len(requests) == 4  # it may have another model meanwhile
    overall = results.variants["board"].groups[0]
    assert overall.pair_scores == {}
    assert overall.image_scores["text_accuracy"].variant.mean > 0
    assert [pair.failure for sample in results.samples for pair in sample.variants.values()] == [None, None]
    gate = results.gates[1]
    assert (gate.name, gate.verdict) == ("psnr_min", "not measured")
    assert "makes its own noise" in gate.reason
    console = Console(width=200)
    with console.capture() as capture:
        console.print(terminal.render(results))
    assert "board: no fidelity: the server makes its own noise" in capture.get()
    assert "noise of its own" in markdown.render(results)
    page = html.render(results, folder)
    assert page.count('"heatmap":null') == 2  # no difference of unlike images
    assert "fidelity of" in page


def test_what_cannot_be_opened_is_refused_before_any_image(reference: Path, folder: Path, tmp_path: Path) -> None:
    weights = read_component(reference / "transformer")
    foreign = write_gguf(weights, tmp_path / "foreign.gguf", "flux")
    quantized = tmp_path / "quantized"
    shutil.copytree(reference, quantized)
    config = quantized / "vae" / "config.json"
    settings = {"quantization_config": {"quant_method": "no-such"}}
    config.write_text(json.dumps(json.loads(config.read_text("utf-8")) | settings))
    for candidate, message in (
        (f"transformer:{foreign}", "architecture 'flux'"),
        (f"unet:{foreign}", "no component 'unet'"),
        (str(quantized), "'no-such', which the installed diffusers cannot open"),
        ("http://127.0.0.1:9", "does not answer"),
    ):
        plan = replace(make_plan(reference, folder, candidate), image_cache=tmp_path / "images")
        with pytest.raises(UserError, match=message):
            run_evaluation(plan)
        assert not (tmp_path / "images").exists()


def test_references_that_cannot_be_are_refused(folder: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(next(Path(__file__).parent.glob("data/*.png")), images / "a.png")
    with pytest.raises(
        UserError, match=r"replaces a component of the reference, but .*images is no diffusers pipeline"
    ):
        make_plan(images, folder, "transformer:x.gguf")
    with pytest.raises(UserError, match="A server is compared with a pipeline or an export"):
        make_plan(images, folder, "http://127.0.0.1:9")
