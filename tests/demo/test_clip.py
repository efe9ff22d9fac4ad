"""The shipped CLIP: small, open_clip's own format, and able to tell the demo's signs apart."""

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
from edgepress.prompts.prompt import Prompt, load_prompts

DATA = Path(__file__).parents[1] / "evaluate" / "data"
Picture = npt.NDArray[np.uint8]
FONTS = pytest.mark.skipif(
    not all(Path(path).exists() for path, _ in dataset.FONTS.values()),
    reason="true signs are drawn with fonts-dejavu-core and fonts-noto-cjk",
)


def found(pictures: list[Picture], prompts: list[str], pool: list[str]) -> float:
    """The share of pictures that are nearer to their own prompt than to any other of the pool."""
    clip = load_clip(f"local-dir:{DEMO_CLIP}")
    texts = [text for prompt in pool if (text := clip.embed_text(prompt)) is not None]
    assert len(texts) == len(pool)
    best = [pool[int(np.argmax([clip.embed_image(picture) @ text for text in texts]))] for picture in pictures]
    return float(np.mean([one == other for one, other in zip(best, prompts, strict=True)]))


def test_it_is_half_precision_safetensors_of_at_most_8_mb() -> None:
    assert sum(file.stat().st_size for file in DEMO_CLIP.iterdir()) <= 8_000_000
    (weights,) = DEMO_CLIP.glob("*.safetensors")
    with safe_open(weights, framework="pt") as tensors:
        assert {tensors.get_tensor(name).dtype for name in tensors.keys()} == {torch.float16}  # noqa: SIM118
    assert not [path for path in DEMO_CLIP.iterdir() if path.suffix in {".bin", ".pt", ".pth", ".pkl"}]


def test_it_comes_with_the_demo(tmp_path: Path) -> None:
    """Whatever way leads there: a checkout may lie behind a link."""
    (tmp_path / "pipeline").symlink_to(DEMO_PIPELINE)
    assert bundled_clip(DEMO_PIPELINE) == bundled_clip(tmp_path / "pipeline") == f"local-dir:{DEMO_CLIP}"
    assert bundled_clip(tmp_path) is None


def test_the_plain_towers_and_the_loader_agree() -> None:
    """The loader's CLIP is transformers' or open_clip's."""
    settings = json.loads((DEMO_CLIP / "open_clip_config.json").read_text())["model_cfg"]
    del settings["text_cfg"]["hf_tokenizer_name"]
    plain = ClipModel(**settings).eval()
    weights = load_file(DEMO_CLIP / "open_clip_model.safetensors")
    plain.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    clip, rng = load_clip(f"local-dir:{DEMO_CLIP}"), np.random.default_rng(0)
    picture = rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)
    prompt = dataset.held_out_signs("evaluation")[0].prompt
    with torch.no_grad():
        image = plain.encode_image(torch.tensor(picture).permute(2, 0, 1)[None].float() / 127.5 - 1)[0].numpy()
        text = plain.encode_text(tokenize(load_tokenizer(DEMO_CLIP), [prompt]))[0].numpy()
    asked = clip.embed_text(prompt)
    assert asked is not None
    np.testing.assert_allclose(clip.embed_image(picture), image, atol=1e-5)
    np.testing.assert_allclose(asked, text, atol=1e-5)


@pytest.mark.parametrize("split", ["calibration", "evaluation"])
def test_every_prompt_of_the_demo_fits(split: dataset.Split) -> None:
    clip = load_clip(f"local-dir:{DEMO_CLIP}")
    assert all(clip.embed_text(sign.prompt) is not None for sign in dataset.held_out_signs(split))


def test_stored_signs_find_their_prompts() -> None:
    """Four true signs, drawn once, among their own prompts and all of the evaluation set; needs no fonts."""
    asked = load_prompts(DATA / "signs.jsonl")
    pictures = [load_image(DATA / f"{prompt.id}.png") for prompt in asked]
    prompts = [prompt.prompt for prompt in asked]
    pool = sorted({*prompts, *(sign.prompt for sign in dataset.held_out_signs("evaluation"))})
    assert found(pictures, prompts, pool) == 1


@pytest.mark.slow
def test_what_the_demo_paints_finds_its_prompt(painted: list[tuple[Prompt, Picture]]) -> None:
    """Pictures of unseen words, among all 305 evaluation prompts."""
    pool = [sign.prompt for sign in dataset.held_out_signs("evaluation")]
    assert found([picture for _, picture in painted], [prompt.prompt for prompt, _ in painted], pool) >= 0.9


@FONTS
@pytest.mark.slow
def test_true_pictures_of_unseen_words_find_their_prompts() -> None:
    held_out = dataset.held_out_signs("evaluation")
    prompts = [sign.prompt for sign in held_out]
    assert found([dataset.render_sign(sign) for sign in held_out], prompts, prompts) >= 0.97


@FONTS
def test_a_picture_is_nearer_to_itself_disturbed_than_to_one_with_a_wrong_letter() -> None:
    """Which is what CLIP-I is asked: damage to the words weighs more than noise that leaves them."""
    clip, rng = load_clip(f"local-dir:{DEMO_CLIP}"), random.Random(0)
    for sign in dataset.held_out_signs("evaluation")[:12]:
        true = dataset.render_sign(sign)
        noisy = np.clip(true + np.random.default_rng(0).normal(0, 4, true.shape), 0, 255).round().astype(np.uint8)
        wrong = dataset.render_sign(replace(sign, lines=misspell(rng, sign)))
        near, far = (cosine_similarity(clip.embed_image(true), clip.embed_image(other)) for other in (noisy, wrong))
        assert near > far, sign


# ---------------------------------------------------------------- what it was trained on


def test_a_misspelt_sign_differs_in_one_letter() -> None:
    rng = random.Random(0)
    for _ in range(200):
        sign = dataset.draw_sign(rng)
        other = misspell(rng, sign)
        pairs = zip(" ".join(sign.lines), " ".join(other), strict=True)
        assert sum(one != two for one, two in pairs) == 1
        assert not set(other) - set(sign.lines) & dataset.held_out_words()


def test_the_truth_of_a_sign_names_every_character_and_place() -> None:
    sign = dataset.Sign(("AB", "C"), "en", "red", "white", "plain", "large", "top", 0)
    truth = make_labels([sign])
    slots = truth.slots.view(2, dataset.GRID)
    assert slots[0, :3].tolist() == [0, 1, slots.max().item()]
    assert slots[1, :2].tolist() == [2, slots.max().item()]
    patches = truth.patches.view(dataset.GRID, dataset.GRID)
    assert patches[0, :5].tolist() == [0, 0, 1, 1, slots.max().item()]  # two patches a letter
    assert (patches[3:5, :2] == 2).all()  # the second line, three rows further down


def test_disturbing_keeps_the_range_and_most_of_the_picture() -> None:
    torch.manual_seed(0)
    images = torch.rand(8, 3, 32, 32) * 2 - 1
    out = augment(images)
    assert out.abs().max() <= 1
    assert 0 < (out - images).abs().mean() < 0.3
