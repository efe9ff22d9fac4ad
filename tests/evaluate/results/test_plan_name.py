"""Names of plans: people understand them, and two runs share one only if their numbers can be compared."""

from __future__ import annotations

import re

from helpers.result_rows import VARIANT, make_identity, make_prompt, make_results, make_sample

from edgepress.evaluate.results.folder_identity import FolderIdentity
from edgepress.evaluate.results.plan_name import name_plan
from edgepress.evaluate.results.schema import GateResult, SamplingInfo, SystemInfo

SAMPLES = [make_sample(make_prompt(name), 30) for name in "abc"]
SYSTEM = SystemInfo(kind="onnx", folder=FolderIdentity(path="model", sha256="1" * 64, files=1, bytes=1), dtype=None)
SAMPLING = SamplingInfo(height=64, width=96, steps=2, guidance=0.0, num_seeds=1)


def name_with(**changes: object) -> str:
    return name_plan(make_results(SAMPLES, identity=make_identity(**changes)))


def test_a_name_says_what_was_generated() -> None:
    assert re.fullmatch(r"3-prompts-of-set-96x64-2-steps-[0-9a-f]{8}", name_with())
    single = make_results(SAMPLES[:1], identity=make_identity(prompt_set="/x/my prompts (new)!.csv"))
    assert re.fullmatch(r"1-prompt-of-my-prompts-new-96x64-2-steps-[0-9a-f]{8}", name_plan(single))
    seeds = SAMPLING.model_copy(update={"num_seeds": 4, "steps": 1})
    assert re.fullmatch(r"3-prompts-of-set-4-seeds-96x64-1-step-[0-9a-f]{8}", name_with(sampling=seeds))
    images = SamplingInfo(height=None, width=None, steps=None, guidance=None, num_seeds=1)
    assert re.fullmatch(r"3-images-[0-9a-f]{8}", name_with(sampling=images, prompt_set=None))


def test_a_prompt_set_cannot_lead_out_of_the_folder() -> None:
    for name in ("..", "/", "...", "a/../..", "\n"):
        folder = name_with(prompt_set=name)
        assert "/" not in folder
        assert folder.startswith("3-prompts-of-")


def test_whatever_changes_the_numbers_changes_the_name() -> None:
    names = [
        name_with(),
        name_with(prompts_sha256="1" * 64),
        name_with(reference=SYSTEM),
        name_with(variants={VARIANT: SYSTEM}),
        name_with(variants={"other": make_identity().reference}),
        name_with(ground_truth=SYSTEM.folder),
        name_with(metrics={"psnr": "1", "flip": "2", "text": "1"}),
        name_with(metrics={"psnr": "1"}),
        name_with(sampling=SAMPLING.model_copy(update={"guidance": 1.0})),
        name_with(sampling=SAMPLING.model_copy(update={"steps": 3})),
        name_plan(make_results(SAMPLES, noise_floor=make_results(SAMPLES).variants[VARIANT])),
    ]
    assert len(set(names)) == len(names)


def test_gates_times_and_places_do_not_change_the_name() -> None:
    gate = GateResult(
        variant=VARIANT, name="psnr_min", score="psnr", limit=30, relative=False, value=30, low=30, high=30,
        verdict="passed", reason="", minimum_detectable_effect=None,
    )  # fmt: skip
    moved = make_identity().reference.folder.model_copy(update={"path": "/elsewhere"})
    identity = make_identity(reference=make_identity().reference.model_copy(update={"folder": moved}), device="pi5")
    changed = make_results(SAMPLES, gates=(gate,), verdict="passed", created="2027", identity=identity)
    assert name_plan(changed) == name_with()
