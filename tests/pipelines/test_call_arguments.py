"""What pipelines are called with, on signatures like those of diffusers."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from edgepress.common.errors import UserError
from edgepress.pipelines.call_arguments import build_arguments, get_images, list_calls
from edgepress.pipelines.sampling import SamplingParams
from edgepress.prompts.prompt import Prompt

PROMPTS = [Prompt(id="a", prompt="a cat", language="en"), Prompt(id="b", prompt="a dog", language="en")]
SAMPLING = SamplingParams(height=64, width=32, steps=3, guidance=4.0)


class GuidedPipeline:
    def __call__(
        self,
        prompt: Any = None,
        height: Any = None,
        width: Any = None,
        num_inference_steps: int = 50,
        guidance_scale: float = 7.5,
        negative_prompt: Any = None,
    ) -> None: ...


class TwoStagePipeline:
    def __call__(
        self,
        prompt: Any = None,
        num_inference_steps: int = 12,
        prior_num_inference_steps: int = 60,
        prior_guidance_scale: float = 4.0,
        decoder_guidance_scale: float = 0.0,
        use_resolution_binning: bool = True,
    ) -> None: ...


class OptionallyDistilledPipeline:
    def __init__(self, guidance_embeds: bool) -> None:
        self.transformer = SimpleNamespace(config={"guidance_embeds": guidance_embeds})

    def __call__(
        self,
        prompt: Any = None,
        negative_prompt: Any = None,
        true_cfg_scale: float = 4.0,
        guidance_scale: float | None = None,
    ) -> None: ...


def test_what_a_pipeline_takes_is_passed_and_nothing_else() -> None:
    assert build_arguments(GuidedPipeline(), PROMPTS, SAMPLING) == {
        "prompt": ["a cat", "a dog"], "height": 64, "width": 32, "num_inference_steps": 3, "guidance_scale": 4.0,
    }  # fmt: skip


def test_both_stages_get_the_settings_and_no_other_size_is_generated() -> None:
    assert build_arguments(TwoStagePipeline(), PROMPTS[:1], SAMPLING) == {
        "prompt": ["a cat"],
        "num_inference_steps": 3,
        "prior_num_inference_steps": 3,
        "prior_guidance_scale": 4.0,
        "decoder_guidance_scale": 4.0,
        "use_resolution_binning": False,
    }


def test_guidance_of_a_model_that_may_be_distilled() -> None:
    """A second pass needs a negative prompt, if only a space; a distilled model takes the scale as an input."""
    prompts = {"prompt": ["a cat"]}
    second_pass = build_arguments(OptionallyDistilledPipeline(False), PROMPTS[:1], SAMPLING)
    assert second_pass == prompts | {"true_cfg_scale": 4.0, "negative_prompt": [" "]}
    unguided = SamplingParams(64, 32, 3, 0.0)
    assert build_arguments(OptionallyDistilledPipeline(False), PROMPTS[:1], unguided) == prompts | {
        "true_cfg_scale": 0.0
    }
    distilled = build_arguments(OptionallyDistilledPipeline(True), PROMPTS[:1], SAMPLING)
    assert distilled["guidance_scale"] == 4.0
    assert "true_cfg_scale" not in distilled


def test_a_prompt_has_its_own_negative_prompt_or_that_of_the_recipe() -> None:
    prompts = [PROMPTS[0], PROMPTS[1].model_copy(update={"negative_prompt": "ugly"})]
    assert "negative_prompt" not in build_arguments(GuidedPipeline(), PROMPTS, SAMPLING)
    assert build_arguments(GuidedPipeline(), prompts, SAMPLING)["negative_prompt"] == ["", "ugly"]
    sampling = SamplingParams(64, 32, 3, 4.0, negative_prompt="blurred")
    assert build_arguments(GuidedPipeline(), prompts, sampling)["negative_prompt"] == ["blurred", "ugly"]
    with pytest.raises(UserError, match="TwoStagePipeline takes no negative prompt"):
        build_arguments(TwoStagePipeline(), prompts, SAMPLING)


def test_a_prompt_has_its_own_guidance_or_that_of_the_recipe() -> None:
    guided = PROMPTS[0].model_copy(update={"guidance": 2.5})
    assert build_arguments(GuidedPipeline(), [guided], SAMPLING)["guidance_scale"] == 2.5
    second_pass = build_arguments(OptionallyDistilledPipeline(False), [guided], replace(SAMPLING, guidance=0.0))
    assert (second_pass["true_cfg_scale"], second_pass["negative_prompt"]) == (2.5, [" "])
    empty = [PROMPTS[0], PROMPTS[1].model_copy(update={"negative_prompt": "ugly"})]
    assert build_arguments(OptionallyDistilledPipeline(False), empty, SAMPLING)["negative_prompt"] == [" ", "ugly"]


def test_images_are_found_under_either_name() -> None:
    assert get_images(SimpleNamespace(images=[1])) == get_images(SimpleNamespace(image=[1])) == [1]


class SecondPassPipeline:
    def __call__(self, prompt: Any = None, negative_prompt: Any = None, true_cfg_scale: float = 1.0) -> None: ...


class SinglePromptPipeline:
    def __call__(self, prompt: str | None = None, height: int | None = None, generator: Any = None) -> None: ...


class StrictPipeline:
    """Says that it takes a list, which its check refuses."""

    def check_inputs(self, prompt: str | None, height: int | None) -> None: ...

    def __call__(self, prompt: str | list[str] | None = None, height: int | None = None) -> None: ...


class ScheduledPipeline:
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        guidance_scale: float | None = None,
        guidance_schedule: Any = (7.0, 3.0),
        enable_prompt_rewrite: bool = True,
    ) -> None: ...


def test_guidance_of_a_class_that_has_a_second_pass_only() -> None:
    expected = {"prompt": ["a cat"], "true_cfg_scale": 4.0, "negative_prompt": [" "]}
    assert build_arguments(SecondPassPipeline(), PROMPTS[:1], SAMPLING) == expected


def test_one_scale_replaces_a_schedule_and_prompts_are_not_rewritten() -> None:
    assert build_arguments(ScheduledPipeline(), PROMPTS[:1], SAMPLING) == {
        "prompt": ["a cat"], "guidance_scale": 4.0, "guidance_schedule": None, "enable_prompt_rewrite": False,
    }  # fmt: skip


def test_a_class_that_takes_one_prompt_is_called_for_each() -> None:
    arguments = {"prompt": ["a cat", "a dog"], "height": 64, "generator": [1, 2]}
    assert list_calls(SinglePromptPipeline(), arguments) == [
        {"prompt": "a cat", "height": 64, "generator": 1},
        {"prompt": "a dog", "height": 64, "generator": 2},
    ]
    assert len(list_calls(StrictPipeline(), arguments)) == 2
    assert list_calls(ScheduledPipeline(), arguments) == [arguments]
    assert list_calls(GuidedPipeline(), arguments) == [arguments]
