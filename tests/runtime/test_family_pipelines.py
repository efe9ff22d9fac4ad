"""Other families from end to end: quantized, exported, and images without torch that equal those of diffusers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from helpers.tiles import without_tile_graphs
from helpers.tiny_families import FLUX, KLEIN, QWEN, SD3, SDXL, SIDE, write_tiny_family
from helpers.torch_graphs import psnr
from PIL import Image

import edgepress.loading  # noqa: F401  registers the loader
from edgepress.common.errors import UserError
from edgepress.export.graph.source_model import open_source
from edgepress.export.onnx.exporter import export_onnx
from edgepress.models.base.prompt_tokens import get_longest_format
from edgepress.pipelines.call_arguments import build_arguments
from edgepress.pipelines.prompt_limits import find_truncations, load_pipeline_host
from edgepress.pipelines.sampling import SamplingParams, generate_images, load_pipeline
from edgepress.prompts.prompt import Prompt
from edgepress.quantize.pipeline import quantize_pipeline
from edgepress.recipes.schema import ExportSettings, GenerationSettings, QuantizationSettings, Recipe
from edgepress.runtime.generation_request import GenerationRequest
from edgepress.runtime.golden import run_goldens
from edgepress.runtime.pipeline import ImagePipeline
from edgepress.runtime.tokenizers import PromptTokenizers

pytestmark = pytest.mark.slow

STEPS, SIZE = 3, (SIDE, SIDE + 16)
MIN_PSNR = 38.0  # dB, of INT4: as an export requires it (TOLERANCES)
REQUESTS: dict[str, list[tuple[float, str]]] = {  # guidance and negative prompt
    FLUX: [(3.5, "")],
    SD3: [(1.0, ""), (4.0, "a dog")],
    SDXL: [(1.0, ""), (4.0, ""), (4.0, "a dog")],
    KLEIN: [(1.0, ""), (4.0, "")],
    QWEN: [(1.0, ""), (4.0, ""), (4.0, "a dog")],
}
STARTS = [(5, 0.5), (3, 0.7)]  # steps, and the strength of an image to start from
IMAGE_CLASSES = {  # of images that start from another one; Klein has none
    FLUX: diffusers.FluxImg2ImgPipeline,
    SD3: diffusers.StableDiffusion3Img2ImgPipeline,
    SDXL: diffusers.StableDiffusionXLImg2ImgPipeline,
    QWEN: diffusers.QwenImageImg2ImgPipeline,
}
WITHOUT_TORCH = """
import sys
for name in ("torch", "diffusers", "transformers", "onnx", "safetensors"):
    sys.modules[name] = None
from edgepress.cli.main import main
main(sys.argv[1:])
"""


@pytest.fixture(scope="module", params=REQUESTS)
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quantized and exported tiny pipeline, whose folder has the name of its class."""
    name, folder = request.param, tmp_path_factory.mktemp("family")
    write_tiny_family(name, folder / "source")
    recipe = Recipe(
        device="test",
        quantize=QuantizationSettings(method="rtn"),
        calibration=GenerationSettings(count=1, steps=2, size=(SIDE, SIDE)),
    )
    quantize_pipeline(recipe, folder / "source", folder / name)
    settings = ExportSettings(extra_graphs=("vae_encoder",) if name in IMAGE_CLASSES else ())
    with without_tile_graphs():
        export_onnx(folder / name, folder / name, settings, accuracy_level=0, sizes=[SIZE])
    return folder / name


def generate_with_torch(pipeline: Any, request: GenerationRequest) -> Image.Image:
    """Generates an image with the pipeline of diffusers, called as an evaluation calls it."""
    start: dict[str, Any] = {}
    if request.image is not None:
        pipeline = IMAGE_CLASSES[type(pipeline).__name__](**pipeline.components)
        start = {"image": request.image, "strength": request.strength}
    sampling = SamplingParams(*SIZE, request.steps, request.guidance, request.negative_prompt)
    arguments = build_arguments(pipeline, [Prompt(id="p", prompt=request.prompt, language="en")], sampling) | start
    with torch.no_grad():
        images = pipeline(**arguments, generator=torch.Generator().manual_seed(request.seed)).images
    image: Image.Image = images[0]
    return image


def test_images_equal_those_of_diffusers_with_and_without_guidance(artifact: Path) -> None:
    pipeline, exported = load_pipeline(artifact / "model", torch.float32), ImagePipeline(artifact)
    images = []
    for guidance, negative in REQUESTS[artifact.name]:
        request = GenerationRequest("a cat", 3, STEPS, SIZE, guidance=guidance, negative_prompt=negative)
        images.append(exported.generate(request))
        assert images[-1].size == SIZE[::-1]
        assert np.asarray(images[-1]).std() > 5
        assert psnr(images[-1], generate_with_torch(pipeline, request)) >= MIN_PSNR
    images.append(exported.generate(GenerationRequest("two dogs", 3, STEPS, SIZE)))
    for number, image in enumerate(images):
        assert max((psnr(image, earlier) for earlier in images[:number]), default=0) < MIN_PSNR


def test_images_that_start_from_another_equal_those_of_diffusers(artifact: Path) -> None:
    """The image to start from is larger than what is generated: its sides are lowered to multiples of a patch."""
    pipeline, exported = load_pipeline(artifact / "model", torch.float32), ImagePipeline(artifact)
    start = Image.effect_noise((SIZE[1] + 7, SIZE[0] + 5), 90).convert("RGB")
    whole = exported.generate(GenerationRequest("a cat", 3, 5, SIZE, guidance=1.0))
    for (steps, strength), (guidance, negative) in zip(STARTS, REQUESTS[artifact.name][::-1] * 2, strict=False):
        request = GenerationRequest(
            "a cat", 3, steps, guidance=guidance, negative_prompt=negative, image=start, strength=strength
        )
        if artifact.name not in IMAGE_CLASSES:
            with pytest.raises(UserError, match=r"takes no 'image' .*: diffusers has no .* as references.* Leave it"):
                exported.check_request(request)
            continue
        image = exported.generate(request)
        assert image.size == SIZE[::-1]
        assert psnr(image, generate_with_torch(pipeline, request)) >= MIN_PSNR
        assert psnr(image, whole) < MIN_PSNR


def test_encoders_are_held_against_torch(artifact: Path) -> None:
    parity = json.loads((artifact / "onnx" / "pipeline.json").read_text("utf-8"))["parity"]["exact"]["graphs"]
    assert ("vae_encoder" in parity) == (artifact.name in IMAGE_CLASSES)
    errors = {result.graph: result.relative_error for result in run_goldens(artifact / "onnx")}
    if artifact.name in IMAGE_CLASSES:
        assert errors["vae_encoder"] < 1e-4
    else:
        with pytest.raises(UserError, match=r"no optional graph 'vae_encoder'\. Leave it out: it has none\."):
            open_source(artifact, ("vae_encoder",))


def test_generate_needs_no_torch(artifact: Path, tmp_path: Path) -> None:
    arguments = ["generate", str(artifact), "--prompt", "a cat", "--seed", "3", "--steps", str(STEPS)]
    arguments += ["--size", f"{SIZE[0]}x{SIZE[1]}", "--guidance", "1", "-o", str(tmp_path / "image.png")]
    process = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *arguments], capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
    expected = ImagePipeline(artifact).generate(GenerationRequest("a cat", 3, STEPS, SIZE, guidance=1.0))
    with Image.open(tmp_path / "image.png") as image:
        assert np.array_equal(np.asarray(image), np.asarray(expected))


def test_tokens_and_notices_of_long_prompts_equal_those_of_diffusers(artifact: Path) -> None:
    """The tokens of torch are those that the text encoders are given."""
    pipeline = load_pipeline(artifact / "model", torch.float32)
    host = load_pipeline_host(pipeline)
    assert host is not None
    tokenizers = PromptTokenizers(artifact / "onnx", host.prompt_formats)
    names = [name for name in pipeline.components if name.startswith("text_encoder")]
    for text in ("", "a cat", "a bird and a cat " * 60):
        seen: dict[str, list[int]] = {}

        def record(module: Any, arguments: Any, named: Any, seen: dict[str, list[int]] = seen) -> None:
            (name,) = (name for name in names if getattr(pipeline, name) is module)
            seen.setdefault(name, (arguments[0] if arguments else named["input_ids"])[0].tolist())

        hooks = [getattr(pipeline, name).register_forward_pre_hook(record, with_kwargs=True) for name in names]
        generate_with_torch(pipeline, GenerationRequest(text, steps=2))
        for hook in hooks:
            hook.remove()
        encoded = tokenizers.tokenize(text)
        ids = {name.replace("tokenizer", "text_encoder"): part.ids.tolist() for name, part in encoded.tokens.items()}
        # Qwen-Image encodes more tokens than it reads, which changes nothing for those before them.
        assert ids == {name: values[: len(ids[name])] for name, values in seen.items()}
        assert find_truncations(pipeline, host, [text]) == [encoded.truncation_notice]
        longest = len(encoded.tokens[get_longest_format(host.prompt_formats).tokenizer].ids)
        assert bool(encoded.truncation_notice) == (len(text) > longest)


def test_a_model_that_needs_guidance_says_so_in_torch_and_in_graphs(artifact: Path) -> None:
    pipeline = load_pipeline(artifact / "model", torch.float32)
    sampling = SamplingParams(*SIZE, 2, 0.0)
    notices: dict[str, list[str]] = {"torch": [], "graphs": []}
    generate_images(pipeline, [Prompt(id="p", prompt="a cat", language="en")], sampling, warn=notices["torch"].append)
    request = GenerationRequest("a cat", steps=2, size=SIZE)
    ImagePipeline(artifact).generate(request, warn=notices["graphs"].append)
    assert notices["torch"] == notices["graphs"]
    assert ["guidance scales above 0" in notice for notice in notices["graphs"]] == [True] * (artifact.name == FLUX)


def test_a_negative_prompt_without_guidance_is_refused(artifact: Path) -> None:
    request = GenerationRequest("a cat", steps=1, size=SIZE, guidance=1.0, negative_prompt="a dog")
    with pytest.raises(UserError, match="negative"):
        ImagePipeline(artifact).check_request(request)


def test_a_scheduler_that_the_runtime_lacks_is_refused_by_name(artifact: Path, tmp_path: Path) -> None:
    shutil.copytree(artifact.parent / "source", tmp_path / "source")
    for file, keys in (("model_index.json", ("scheduler", 1)), ("scheduler/scheduler_config.json", ("_class_name",))):
        content = json.loads((tmp_path / "source" / file).read_text("utf-8"))
        holder = content[keys[0]] if len(keys) > 1 else content
        holder[keys[-1]] = "DPMSolverMultistepScheduler"
        (tmp_path / "source" / file).write_text(json.dumps(content), "utf-8")
    with pytest.raises(UserError, match="Unsupported scheduler 'DPMSolverMultistepScheduler'"):
        export_onnx(tmp_path / "source", tmp_path / "out", precision="fp32")
