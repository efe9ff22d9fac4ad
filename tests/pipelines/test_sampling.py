"""What determines an image besides the weights: seeds, batches, size and dtype."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgepress.common.errors import UserError
from edgepress.pipelines.hub import DEMO_PIPELINE
from edgepress.pipelines.prompt_limits import find_truncations, load_pipeline_host
from edgepress.pipelines.sampling import (
    SamplingParams,
    batched,
    generate_images,
    load_pipeline,
    load_pipeline_with,
    prompt_seed,
    read_native_size,
    resolve_dtype,
    resolve_sampling,
)
from edgepress.prompts.prompt import Prompt
from edgepress.recipes.schema import GenerationSettings
from edgepress.runtime.tokenizer import PromptTokenizer


def prompts(count: int) -> list[Prompt]:
    return [Prompt(id=str(number), prompt="", language="en") for number in range(count)]


@pytest.mark.parametrize(
    ("prompt_id", "seed", "expected"),
    [("a", 0, 0x0ED32D3352F0CDDD >> 1), ("sign-1", 7, 0x50E8B1596F38216D >> 1)],
)
def test_a_seed_is_the_start_of_sha256_of_id_and_seed(prompt_id: str, seed: int, expected: int) -> None:
    """The digests come from `printf a:0 | sha256sum`."""
    assert prompt_seed(prompt_id, seed) == expected


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 10**6))
def test_a_seed_fits_a_generator(prompt_id: str, seed: int) -> None:
    assert 0 <= prompt_seed(prompt_id, seed) < 2**63


def test_seeds_differ_between_prompts_and_between_seeds() -> None:
    assert len({prompt_seed(prompt_id, seed) for prompt_id in "abcdefgh" for seed in range(64)}) == 8 * 64


@pytest.mark.parametrize(
    ("height", "width", "batch"),
    [(128, 128, 8), (256, 256, 2), (256, 512, 1), (512, 512, 1), (1024, 1024, 1), (64, 128, 16)],
)
def test_the_batch_depends_on_the_size_alone(height: int, width: int, batch: int) -> None:
    sizes = {SamplingParams(height, width, steps, guidance).batch_size for steps in (1, 8) for guidance in (0.0, 4.0)}
    assert sizes == {batch}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_batches_contain_all_prompts_in_order(size: int) -> None:
    batches = list(batched(prompts(7), size))
    assert [prompt for batch in batches for prompt in batch] == prompts(7)
    assert all(len(batch) == size for batch in batches[:-1])
    assert 0 < len(batches[-1]) <= size


def test_prompts_of_a_batch_are_guided_alike() -> None:
    changes = (
        {},
        {"guidance": 3.0},
        {"guidance": 3.0},
        {"guidance": 0.0},
        {"negative_prompt": ""},
        {"negative_prompt": "x"},
    )
    differing = [prompt.model_copy(update=change) for prompt, change in zip(prompts(6), changes, strict=True)]
    batches = [[prompt.id for prompt in batch] for batch in batched(differing, 8)]
    ids = [prompt.id for prompt in differing]
    assert batches == [[ids[0]], ids[1:3], [ids[3]], [ids[4]], [ids[5]]]


@pytest.mark.parametrize(("denoiser", "side"), [(None, 768), ({}, 768), ({"sample_size": 64}, 512)])
def test_the_native_size_is_the_denoisers_before_the_vaes(
    denoiser: dict[str, int] | None, side: int, tmp_path: Path
) -> None:
    """SD-Turbo makes 512 pixels with a VAE that says 768: https://huggingface.co/stabilityai/sd-turbo."""
    vae = {"sample_size": 768, "block_out_channels": [128, 256, 512, 512]}
    for folder, config in {"vae": vae, "unet": denoiser}.items():
        if config is not None:
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "config.json").write_text(json.dumps(config))
    assert read_native_size(tmp_path) == side


@pytest.mark.parametrize(
    "content",
    [
        None,
        "{",
        "{}",
        "[" * 100_000,
        '{"sample_size": Infinity}',
        '{"sample_size": null}',
        '{"sample_size": "big"}',
        "[]",
    ],
)
def test_a_vae_without_a_size_is_reported_with_what_to_do(tmp_path: Path, content: str | None) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "PixArtSigmaPipeline"}')
    if content is not None:
        (tmp_path / "vae").mkdir()
        (tmp_path / "vae" / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"has no sample_size\. Set the size in the recipe|config\.json (cannot|does)"):
        read_native_size(tmp_path)


def test_a_recipe_has_the_native_size_or_height_and_width(tmp_path: Path) -> None:
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text(json.dumps({"sample_size": 96}))
    assert resolve_sampling(GenerationSettings(steps=3, guidance=1.5), tmp_path) == SamplingParams(96, 96, 3, 1.5)
    assert resolve_sampling(GenerationSettings(size=(64, 128)), tmp_path / "without-a-vae") == SamplingParams(
        64, 128, 8, 0.0
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_explicit_dtype_is_used(tmp_path: Path, dtype: str) -> None:
    assert resolve_dtype(dtype, tmp_path) == dtype


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((1000, 1000), "float32"),
        ((600_000_000, 399_999_999), "float32"),
        ((600_000_000, 400_000_000), "bfloat16"),
    ],
)
def test_auto_is_bfloat16_from_a_gigabyte_of_weights_on(tmp_path: Path, sizes: tuple[int, int], expected: str) -> None:
    """The sum over components counts; the files are sparse."""
    for component, length in zip(("transformer", "text_encoder"), sizes, strict=True):
        (tmp_path / component).mkdir()
        with (tmp_path / component / "model.safetensors").open("wb") as file:
            file.truncate(length)
    assert resolve_dtype("auto", tmp_path) == expected


def test_importing_it_does_not_import_torch() -> None:
    """The command line imports it to plan, long before anything is computed."""
    script = "import sys, edgepress.pipelines.sampling; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# ---------------------------------------------------------------- running a pipeline


def test_latents_are_the_decoders_input(tiny: Path) -> None:
    """Decoded by hand they are the image."""
    pipeline = load_pipeline(tiny, torch.float32)
    (prompt,), sampling = prompts(1), SamplingParams(64, 64, 2, 0.0)
    latents = torch.stack(generate_images(pipeline, [prompt], sampling, output_type="latent"))
    assert latents.shape == (1, 16, 8, 8)
    config = pipeline.vae.config
    with torch.no_grad():
        decoded = pipeline.vae.decode(latents / config.scaling_factor + config.shift_factor).sample
    expected = (decoded[0].permute(1, 2, 0) / 2 + 0.5).clamp(0, 1).mul(255).round()
    assert np.array_equal(
        np.asarray(generate_images(pipeline, [prompt], sampling)[0]), expected.to(torch.uint8).numpy()
    )


def test_an_image_depends_on_id_and_seed_but_hardly_on_its_batch(tiny: Path) -> None:
    pipeline, sampling = load_pipeline(tiny, torch.float32), SamplingParams(64, 64, 1, 0.0)
    alone, second, shared = (
        torch.stack(generate_images(pipeline, selection, sampling, seed, "latent"))
        for selection, seed in ((prompts(1), 0), (prompts(1), 1), (prompts(2), 0))
    )
    assert torch.allclose(alone[0], shared[0], atol=1e-4)
    assert not torch.allclose(alone, second, atol=0.1)
    assert not torch.allclose(shared[0], shared[1], atol=0.1)


def test_every_prompt_is_guided_by_its_scale(tiny: Path) -> None:
    pipeline, sampling = load_pipeline(tiny, torch.float32), SamplingParams(64, 64, 1, 0.0)
    guided = prompts(1)[0].model_copy(update={"guidance": 500.0})
    plain, guided_latents = generate_images(pipeline, [prompts(1)[0], guided], sampling, output_type="latent")
    expected = generate_images(pipeline, prompts(1), replace(sampling, guidance=500.0), output_type="latent")
    assert torch.equal(torch.as_tensor(guided_latents), torch.as_tensor(expected[0]))
    assert not torch.equal(torch.as_tensor(plain), torch.as_tensor(guided_latents))


def test_a_schedule_without_an_end_is_refused_before_it_is_nan(tiny: Path) -> None:
    pipeline = load_pipeline(tiny, torch.float32)
    pipeline.scheduler.register_to_config(shift_terminal=0.02)
    with pytest.raises(UserError, match="has at least 2"):
        generate_images(pipeline, prompts(1), SamplingParams(64, 64, 1, 0.0))


def test_given_components_are_used_and_not_loaded(tiny: Path, tmp_path: Path) -> None:
    whole = load_pipeline(tiny, torch.float32)
    shutil.copytree(tiny, tmp_path / "lean")
    (tmp_path / "lean" / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    pipeline = load_pipeline_with(tmp_path / "lean", torch.float32, {"transformer": whole.transformer})
    assert pipeline.transformer is whole.transformer
    assert pipeline.vae is not whole.vae
    with pytest.raises(UserError, match=r"Cannot load the pipeline .*lean \("):
        load_pipeline(tmp_path / "lean", torch.float32)


def test_loading_restores_the_libraries_progress_bars(tiny: Path) -> None:
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    before = [log.is_progress_bar_enabled() for log in (diffusers_logging, transformers_logging)]
    load_pipeline(tiny, torch.float32)
    assert [log.is_progress_bar_enabled() for log in (diffusers_logging, transformers_logging)] == before


def test_a_size_that_the_pipeline_rejects_is_reported(tiny: Path) -> None:
    with pytest.raises(UserError, match="Invalid image size 65x64"):
        generate_images(load_pipeline(tiny, torch.float32), prompts(1), SamplingParams(65, 64, 1, 0.0))


# ---------------------------------------------------------------- long prompts

LONG = 'a plain white wall, large red letters, top: "OPEN" ' * 40  # hundreds of tokens


def make_prompt(text: str) -> Prompt:
    return Prompt(id="p", prompt=text, language="en")


@pytest.fixture(scope="module")
def demo() -> Any:
    return load_pipeline(DEMO_PIPELINE, torch.float32)


def test_a_prompt_beyond_the_position_table_is_truncated_and_named_once(
    demo: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The demo's table ends at 256 positions; diffusers alone fails with an IndexError."""
    with pytest.raises(IndexError), torch.no_grad():
        demo(LONG, height=64, width=64, num_inference_steps=1, guidance_scale=0.0)
    sampling = SamplingParams(64, 64, 1, 0.0)
    first, second = (generate_images(demo, [make_prompt(LONG)], sampling, output_type="latent")[0] for _ in range(2))
    assert torch.equal(first, second)
    (message,) = caplog.messages
    assert re.match(
        r'Prompt "a plain white wall.*…" has \d+ tokens; the model reads the first 224\. It ignores', message
    )


def test_what_is_cut_off_does_not_matter(demo: Any) -> None:
    """The two prompts have the same first 224 tokens."""
    sampling = SamplingParams(64, 64, 1, 0.0)
    ignored: list[str] = []
    latents = [
        generate_images(demo, [make_prompt(LONG + end)], sampling, output_type="latent", warn=ignored.append)[0]
        for end in ("", "a blue door " * 20)
    ]
    assert torch.equal(*latents)
    assert len(ignored) == 2


def test_graphs_and_torch_truncate_the_same_prompts_alike(demo: Any) -> None:
    """Tokens and notices; the tokens of torch are those that the text encoder is given."""
    host = load_pipeline_host(demo)
    assert host is not None
    tokenizer = PromptTokenizer(DEMO_PIPELINE / "tokenizer", host.prompt_formats[0])
    for text in (LONG, "a cat", "字" * 300):
        seen: list[Any] = []
        hook = demo.text_encoder.register_forward_pre_hook(
            lambda _module, _args, inputs, seen=seen: seen.append(inputs), with_kwargs=True
        )
        generate_images(demo, [make_prompt(text)], SamplingParams(64, 64, 1, 0.0), output_type="latent")
        hook.remove()
        mask = seen[0]["attention_mask"][0].bool()
        tokenized = tokenizer.tokenize(text)
        assert seen[0]["input_ids"][0][mask].tolist() == tokenized.ids.tolist()
        assert find_truncations(demo, host, [text]) == [tokenized.truncation_notice]


def test_a_size_beyond_the_position_table_is_refused(demo: Any) -> None:
    with pytest.raises(UserError, match=r"Invalid image size 64x1040: the model's position tables end at 1024x1024"):
        generate_images(demo, prompts(1), SamplingParams(64, 1040, 1, 0.0))


def test_a_class_without_latents_is_called_that(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size, steps and guidance are not what it rejects."""
    pipeline = load_pipeline(tiny, torch.float32)
    call = type(pipeline).__call__

    @functools.wraps(call)
    def reject(*_: Any, output_type: str, **__: Any) -> None:
        raise ValueError(f"Only pil and np are supported, not output_type={output_type}")

    monkeypatch.setattr(type(pipeline), "__call__", reject)
    prompts = [Prompt(id="p", prompt="a cat", language="en")]
    with pytest.raises(
        UserError, match=r"The class ZImagePipeline returns images and no latents.*Use another pipeline"
    ):
        generate_images(pipeline, prompts, SamplingParams(64, 64, 1, 0.0), output_type="latent")
