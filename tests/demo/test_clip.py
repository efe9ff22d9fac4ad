"""The bundled CLIP: small, in open_clip's format, and able to tell the demo's signs apart."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from edgepress.demo.signs import dataset
from edgepress.demo.training.clip_model import ClipModel
from edgepress.demo.training.train_clip import augment, load_tokenizer, make_labels, misspell, tokenize
from edgepress.evaluate.backends.clip.embedder import cosine_similarity, load_clip
from edgepress.evaluate.images.image_file import load_image
from edgepress.pipelines.hub import DEMO_CLIP, DEMO_PIPELINE, bundled_clip
from edgepress.prompts.prompt import Prompt
from edgepress.prompts.reader import load_prompts

DATA = Path(__file__).parents[1] / "evaluate" / "data"
ImageArray = npt.NDArray[np.uint8]
FONTS = pytest.mark.skipif(
    not all(Path(path).exists() for path, _ in dataset.FONTS.values()),
    reason="drawing signs needs fonts-dejavu-core and fonts-noto-cjk",
)


def measure_retrieval(images: list[ImageArray], prompts: list[str], pool: list[str]) -> float:
    """Returns the share of images whose nearest prompt in a pool is their own."""
    clip = load_clip(f"local-dir:{DEMO_CLIP}")
    texts = [text for prompt in pool if (text := clip.embed_text(prompt)) is not None]
    assert len(texts) == len(pool)
    nearest = [pool[int(np.argmax([clip.embed_image(image) @ text for text in texts]))] for image in images]
    return float(np.mean([best == prompt for best, prompt in zip(nearest, prompts, strict=True)]))


def test_the_weights_are_float16_safetensors_of_at_most_8_mb() -> None:
    assert sum(file.stat().st_size for file in DEMO_CLIP.iterdir()) <= 8_000_000
    (weights,) = DEMO_CLIP.glob("*.safetensors")
    with safe_open(weights, framework="pt") as tensors:
        assert {tensors.get_tensor(name).dtype for name in tensors.keys()} == {torch.float16}  # noqa: SIM118
    assert not [path for path in DEMO_CLIP.iterdir() if path.suffix in {".bin", ".pt", ".pth", ".pkl"}]


def test_it_belongs_to_the_demo(tmp_path: Path) -> None:
    """Also if the path leads through a link."""
    (tmp_path / "pipeline").symlink_to(DEMO_PIPELINE)
    assert bundled_clip(DEMO_PIPELINE) == bundled_clip(tmp_path / "pipeline") == f"local-dir:{DEMO_CLIP}"
    assert bundled_clip(tmp_path) is None


@pytest.mark.slow
def test_the_training_model_and_the_loader_agree() -> None:
    """The loader uses the CLIP of transformers or open_clip."""
    settings = json.loads((DEMO_CLIP / "open_clip_config.json").read_text())["model_cfg"]
    del settings["text_cfg"]["hf_tokenizer_name"]
    plain = ClipModel(**settings).eval()
    weights = load_file(DEMO_CLIP / "open_clip_model.safetensors")
    plain.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    clip, rng = load_clip(f"local-dir:{DEMO_CLIP}"), np.random.default_rng(0)
    pixels = rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)
    prompt = dataset.held_out_signs("evaluation")[0].prompt
    with torch.no_grad():
        image = plain.encode_image(torch.tensor(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1)[0].numpy()
        text = plain.encode_text(tokenize(load_tokenizer(DEMO_CLIP), [prompt]))[0].numpy()
    embedding = clip.embed_text(prompt)
    assert embedding is not None
    np.testing.assert_allclose(clip.embed_image(pixels), image, atol=1e-5)
    np.testing.assert_allclose(embedding, text, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["calibration", "evaluation"])
def test_every_prompt_of_the_demo_fits_the_context(split: dataset.Split) -> None:
    clip = load_clip(f"local-dir:{DEMO_CLIP}")
    assert all(clip.embed_text(sign.prompt) is not None for sign in dataset.held_out_signs(split))


@pytest.mark.slow
def test_stored_signs_are_nearest_to_their_prompts() -> None:
    """Four stored ground-truth signs, among their own prompts and all of the evaluation set. Needs no fonts."""
    stored = load_prompts(DATA / "signs.jsonl")
    images = [load_image(DATA / f"{prompt.id}.png") for prompt in stored]
    prompts = [prompt.prompt for prompt in stored]
    pool = sorted({*prompts, *(sign.prompt for sign in dataset.held_out_signs("evaluation"))})
    assert measure_retrieval(images, prompts, pool) == 1


@pytest.mark.slow
def test_generated_images_are_nearest_to_their_prompts(generated: list[tuple[Prompt, ImageArray]]) -> None:
    """Images of unseen words, among all 305 evaluation prompts."""
    pool = [sign.prompt for sign in dataset.held_out_signs("evaluation")]
    images, prompts = [image for _, image in generated], [prompt.prompt for prompt, _ in generated]
    assert measure_retrieval(images, prompts, pool) >= 0.9


@FONTS
@pytest.mark.slow
def test_ground_truth_images_are_nearest_to_their_prompts() -> None:
    held_out = dataset.held_out_signs("evaluation")
    prompts = [sign.prompt for sign in held_out]
    assert measure_retrieval([dataset.render_sign(sign) for sign in held_out], prompts, prompts) >= 0.97


@FONTS
def test_a_wrong_letter_changes_the_embedding_more_than_noise() -> None:
    """CLIP-I should penalise damaged text more than noise that leaves it readable."""
    clip, rng = load_clip(f"local-dir:{DEMO_CLIP}"), random.Random(0)
    for sign in dataset.held_out_signs("evaluation")[:12]:
        image = dataset.render_sign(sign)
        noisy = np.clip(image + np.random.default_rng(0).normal(0, 4, image.shape), 0, 255).round().astype(np.uint8)
        wrong = dataset.render_sign(replace(sign, lines=misspell(rng, sign)))
        similarities = [
            cosine_similarity(clip.embed_image(image), clip.embed_image(changed)) for changed in (noisy, wrong)
        ]
        assert similarities[0] > similarities[1], sign


# ---------------------------------------------------------------- training data


def test_a_misspelled_sign_differs_in_one_letter() -> None:
    rng = random.Random(0)
    for _ in range(200):
        sign = dataset.draw_sign(rng)
        lines = misspell(rng, sign)
        pairs = zip(" ".join(sign.lines), " ".join(lines), strict=True)
        assert sum(before != after for before, after in pairs) == 1
        assert not set(lines) - set(sign.lines) & dataset.held_out_words()


def test_labels_hold_every_character_and_its_patches() -> None:
    sign = dataset.Sign(("AB", "C"), "en", "red", "white", "plain", "large", "top", 0)
    labels = make_labels([sign])
    slots = labels.slots.view(2, dataset.GRID)
    assert slots[0, :3].tolist() == [0, 1, slots.max().item()]
    assert slots[1, :2].tolist() == [2, slots.max().item()]
    patches = labels.patches.view(dataset.GRID, dataset.GRID)
    assert patches[0, :5].tolist() == [0, 0, 1, 1, slots.max().item()]  # two patches per letter
    assert (patches[3:5, :2] == 2).all()  # the second line, three rows further down


def test_augmented_images_stay_in_range_and_change_slightly() -> None:
    torch.manual_seed(0)
    images = torch.rand(8, 3, 32, 32) * 2 - 1
    out = augment(images)
    assert out.abs().max() <= 1
    assert 0 < (out - images).abs().mean() < 0.3
