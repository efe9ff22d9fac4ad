"""The reference of a pipeline that was quantized with LoRAs has the same LoRAs."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.lora import ATTENTION, FEED_FORWARD, make_factors, merge, write_diffusers_lora
from helpers.published_artifact import publish_model
from helpers.tiny import edit_weights

from edgepress.common.errors import UserError
from edgepress.evaluate.evaluator import run_evaluation
from edgepress.evaluate.generation.candidates import ImageSource
from edgepress.evaluate.plan import EvaluationOptions, EvaluationPlan, plan_evaluation
from edgepress.evaluate.results.folder_identity import hash_folder
from edgepress.pipelines.lora_files import parse_lora
from edgepress.pipelines.sampling import SamplingParams
from edgepress.prompts.prompt import Prompt
from edgepress.recipes.schema import Recipe
from edgepress.storage.checksums import write_checksums
from edgepress.storage.files import hash_files, record_file
from edgepress.storage.layout import Artifact
from edgepress.storage.manifest import read_manifest, write_manifest
from edgepress.storage.source_location import write_source_location

WEIGHT = 0.5


@pytest.fixture(scope="module")
def lora(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    factors = make_factors(reference / "transformer", ATTENTION, FEED_FORWARD)
    return f"{write_diffusers_lora(tmp_path_factory.mktemp('lora') / 'style.safetensors', factors)}:{WEIGHT}"


def make_plan(
    reference: Path, candidate: Path, prompts: tuple[Prompt, ...], folder: Path, *loras: str
) -> EvaluationPlan:
    return EvaluationPlan(
        reference=ImageSource("diffusers", reference, loras=loras),
        candidates={"candidate": ImageSource("diffusers", candidate)},
        prompts=prompts[:1],
        sampling=SamplingParams(height=64, width=64, steps=1, guidance=0.0),
        dtype="float32",
        output=folder / "evaluation",
        image_cache=folder / "images",
        metrics=("psnr",),
    )


def test_images_of_the_reference_are_those_of_the_sum(
    reference: Path, prompts: tuple[Prompt, ...], lora: str, tmp_path: Path
) -> None:
    """The candidate is the reference with the sum in its file."""
    fused = tmp_path / "fused"
    shutil.copytree(reference, fused)
    factors = make_factors(reference / "transformer", ATTENTION, FEED_FORWARD)
    with edit_weights(fused / "transformer") as tensors:
        for path in factors:
            tensors[f"{path}.weight"] = merge(reference / "transformer", factors, path, WEIGHT).float()
    results = run_evaluation(make_plan(reference, fused, prompts, tmp_path, lora))
    values = results.samples[0].variants["candidate"].values
    assert values["psnr"] is None or values["psnr"] > 60
    assert results.identity.reference.loras == ("style.safetensors:0.5",)
    assert results.identity.reference.folder.sha256 != hash_folder(reference).sha256, "images of both would be mixed up"


@pytest.fixture
def artifact(reference: Path, candidate: Path, lora: str, tmp_path: Path) -> Artifact:
    """An artifact that says that it was quantized from the reference with the LoRA."""
    artifact = Artifact(tmp_path / "artifact")
    publish_model(artifact, b"1")
    manifest = read_manifest(artifact.path)
    assert manifest is not None
    shutil.rmtree(artifact.model)
    shutil.copytree(candidate, artifact.model)
    changes = {"sources": hash_files(reference), "files": hash_files(candidate), "loras": [parse_lora(lora).record()]}
    write_manifest(manifest.model_copy(update=changes), artifact.path)
    write_checksums([record_file(artifact.path, artifact.manifest.name)], artifact.path)
    write_source_location(reference, artifact, [lora])
    return artifact


def test_a_plan_takes_the_loras_of_the_candidate(artifact: Artifact, reference: Path, lora: str) -> None:
    options = EvaluationOptions(candidates=(str(artifact.model),), prompts="smoke")
    for model in (None, str(reference)):
        plan = plan_evaluation(Recipe(device="test"), replace(options, model=model))
        assert (plan.reference.folder, plan.reference.loras) == (reference, (lora,))


def test_without_an_artifact_the_recipe_names_the_loras(reference: Path, candidate: Path, lora: str) -> None:
    recipe = Recipe(device="test", model=str(reference), loras=(lora,))
    plan = plan_evaluation(recipe, EvaluationOptions(candidates=(str(candidate),), prompts="smoke"))
    assert plan.reference.loras == (lora,)


def test_a_reference_without_the_lora_is_refused(
    artifact: Artifact, reference: Path, prompts: tuple[Prompt, ...], tmp_path: Path
) -> None:
    plan = make_plan(reference, artifact.model, prompts, tmp_path)
    with pytest.raises(UserError, match=r"the LoRA style\.safetensors:0\.5"):
        run_evaluation(plan)
