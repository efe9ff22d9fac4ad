"""Trains the demo's CLIP, which knows the demo's signs and nothing else: `python -m edgepress.demo.training.train_clip --help`.

Signs are drawn on the fly by `signs.py`, most of them in fours that share all but a letter, the words or the looks, so
that telling them apart takes reading. The loss is CLIP's and three more, which are dropped with their heads afterwards:
one head reads every character and the style from either embedding, the picture's and the prompt's alike, and one names
the character that each patch belongs to. Pictures are disturbed a little by noise, blur and colour casts, and a quarter
of them has been through the demo's VAE or is the demo's own painting, because those are what it will be shown.

It writes open_clip's format in float16: weights, configuration and a tokenizer that transformers reads as well.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...pipelines.hub import DEMO_PIPELINE
from ..signs import dataset
from .clip_model import CONFIG, ClipModel
from .train_pipeline import CHARACTERS, TrainingStage, generate_images, load_modules, render_images, stream_signs

GROUP_SIZE = 4  # signs that differ in little
NUM_GENERATED = 1024  # signs as the demo's own decoder shows them, made once
GENERATED_SHARE = 0.25  # their share of a batch
POOL_SIZE = 2048  # signs kept at hand; a quarter of what a batch takes is renewed at each step
EMA_DECAY = 0.995
START_TOKEN, END_TOKEN = "<|start|>", "<|end|>"
STYLES: dict[str, list[Any]] = {
    "cell": list(dataset.CELLS),
    "colour": list(dataset.COLOURS),
    "ground": list(dataset.BACKGROUNDS),
    "pattern": list(dataset.PATTERNS),
    "place": list(dataset.PLACES),
}
SLOTS = 2 * dataset.GRID  # two lines of at most so many characters
BLANK = len(CHARACTERS)


# ---------------------------------------------------------------- tokenizer


def save_tokenizer(folder: Path) -> int:
    """The demo's vocabulary with a start and an end token, the end having the largest number; returns its size.

    Full width and curly quotes are folded, because open_clip's cleaning does so before it asks a tokenizer.
    """
    from tokenizers import Tokenizer, normalizers, processors

    tokenizer = Tokenizer.from_file(str(DEMO_PIPELINE / "tokenizer" / "tokenizer.json"))
    quotes = [normalizers.Replace(quote, '"') for quote in "“”"]
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), *quotes])
    tokenizer.add_special_tokens([START_TOKEN, END_TOKEN])
    ends = [(token, tokenizer.token_to_id(token)) for token in (START_TOKEN, END_TOKEN)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START_TOKEN} $A {END_TOKEN}", special_tokens=ends
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": START_TOKEN,
        "eos_token": END_TOKEN,
        "pad_token": "<|endoftext|>",
        "model_max_length": CONFIG["model_cfg"]["text_cfg"]["context_length"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    return tokenizer.get_vocab_size()


def load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def tokenize(tokenizer: Any, prompts: list[str]) -> Tensor:
    """Shape (n, context), padded."""
    length = CONFIG["model_cfg"]["text_cfg"]["context_length"]
    input_ids: Tensor = tokenizer(
        prompts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    ).input_ids
    return input_ids


# ---------------------------------------------------------------- data


def draw_groups(rng: random.Random, stream: Iterator[dataset.Sign]) -> Iterator[dataset.Sign]:
    """A sign; itself with another letter; in other words; and dressed otherwise."""
    while True:
        sign = next(stream)
        max_length = dataset.max_line_length(sign.language, sign.size)
        words = [dataset.draw_word(rng, sign.language, min(max_length, 5)) for _ in sign.lines]
        yield from (
            sign,
            replace(sign, lines=misspell(rng, sign)),
            replace(sign, lines=tuple(words)),
            dataset.style_sign(rng, list(sign.lines), sign.language, sign.size),
        )


def misspell(rng: random.Random, sign: dataset.Sign) -> tuple[str, ...]:
    """The lines with one character replaced; never a reserved word."""
    alphabet = dataset.HANZI if sign.language == "zh" else dataset.LETTERS
    while True:
        lines = list(sign.lines)
        line = rng.randrange(len(lines))
        position = rng.randrange(len(lines[line]))
        lines[line] = lines[line][:position] + rng.choice(alphabet) + lines[line][position + 1 :]
        if lines[line] != sign.lines[line] and lines[line] not in dataset.held_out_words():
            return tuple(lines)


class SignPool:
    """Fours of signs and their true pictures as bytes, drawn once and met about four times each."""

    def __init__(self, stream: Iterator[dataset.Sign]) -> None:
        self.stream = stream
        self.signs = [next(stream) for _ in range(POOL_SIZE)]
        self.images = torch.cat([to_uint8(render_images(self.signs[at : at + 64])) for at in range(0, POOL_SIZE, 64)])
        self.oldest = 0

    def batch(self, count: int) -> tuple[list[dataset.Sign], Tensor]:
        self.renew(count // 4)
        firsts = random.sample(range(0, POOL_SIZE, GROUP_SIZE), count // GROUP_SIZE)
        chosen = [first + i for first in firsts for i in range(GROUP_SIZE)]
        return [self.signs[i] for i in chosen], to_float(self.images[chosen])

    def renew(self, count: int) -> None:
        drawn = [next(self.stream) for _ in range(count // GROUP_SIZE * GROUP_SIZE)]
        places = [(self.oldest + i) % POOL_SIZE for i in range(len(drawn))]
        self.images[places] = to_uint8(render_images(drawn))
        for place, sign in zip(places, drawn, strict=True):
            self.signs[place] = sign
        self.oldest = (self.oldest + len(drawn)) % POOL_SIZE


def to_uint8(images: Tensor) -> Tensor:
    return ((images + 1) * 127.5).round().byte()


def to_float(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1


class GeneratedPool:
    """Training signs as the demo's decoder or its whole pipeline shows them, made once, in -1..1."""

    def __init__(self, count: int, stream: Iterator[dataset.Sign]) -> None:
        from diffusers import ZImagePipeline

        pipeline = ZImagePipeline.from_pretrained(DEMO_PIPELINE, torch_dtype=torch.float32)
        self.signs = [next(stream) for _ in range(count)]
        batches = [
            generate_images(pipeline, self.signs[at : at + 16])
            if at < count // 4
            else reconstruct(pipeline.vae, self.signs[at : at + 16])
            for at in range(0, count, 16)
        ]
        self.images = to_uint8(torch.cat(batches).clamp(-1, 1))

    def batch(self, count: int) -> tuple[list[dataset.Sign], Tensor]:
        chosen = random.sample(range(len(self.signs)), count)
        return [self.signs[i] for i in chosen], to_float(self.images[chosen])


@torch.no_grad()
def reconstruct(vae: Any, batch: list[dataset.Sign]) -> Tensor:
    out: Tensor = vae.decode(vae.encode(render_images(batch)).latent_dist.mean).sample
    return out


def augment(images: Tensor) -> Tensor:
    """Noise, blur and a colour cast, each on some of the pictures."""
    n = len(images)
    noise = 0.1 * torch.rand(n, 1, 1, 1) * (torch.rand(n, 1, 1, 1) < 0.5)
    blur = (torch.rand(n, 1, 1, 1) < 0.25).float()
    images = torch.lerp(images, F.avg_pool2d(images, 3, 1, 1, count_include_pad=False), blur)
    images = images * (1 + 0.05 * torch.randn(n, 1, 1, 1)) + 0.03 * torch.randn(n, 3, 1, 1)
    return (images + noise * torch.randn_like(images)).clamp(-1, 1)


# ---------------------------------------------------------------- heads


@dataclass
class SignLabels:
    """What a batch of signs shows."""

    slots: Tensor  # (n, SLOTS): characters
    patches: Tensor  # (n, 64): the character of each patch
    styles: dict[str, Tensor]  # (n,) each


def make_labels(batch: list[dataset.Sign]) -> SignLabels:
    slots = torch.full((len(batch), 2, dataset.GRID), BLANK)
    patches = torch.full((len(batch), dataset.GRID, dataset.GRID), BLANK)
    for i, sign in enumerate(batch):
        for row, line in enumerate(sign.lines):
            slots[i, row, : len(line)] = torch.tensor([CHARACTERS.index(character) for character in line])
        for cell in sign.cells:
            area = (slice(cell.row, cell.row + cell.height), slice(cell.column, cell.column + cell.width))
            patches[(i, *area)] = CHARACTERS.index(cell.character)
    styles = {
        name: torch.tensor([values.index(get_style(sign, name)) for sign in batch]) for name, values in STYLES.items()
    }
    return SignLabels(slots.flatten(1), patches.flatten(1), styles)


def get_style(sign: dataset.Sign, name: str) -> Any:
    return (sign.language, sign.size) if name == "cell" else getattr(sign, name)


class AuxiliaryHeads(nn.Module):
    """What training asks beside the contrast; not kept."""

    def __init__(self, embed_dim: int, width: int) -> None:
        super().__init__()
        self.slots = nn.Linear(embed_dim, SLOTS * (BLANK + 1))
        self.styles = nn.ModuleDict({name: nn.Linear(embed_dim, len(values)) for name, values in STYLES.items()})
        self.patches = nn.Linear(width, BLANK + 1)

    def embedding_loss(self, embedding: Tensor, labels: SignLabels) -> Tensor:
        scaled = embedding * embedding.shape[-1] ** 0.5
        characters = self.slots(scaled).float().view(-1, BLANK + 1)
        parts = [2 * F.cross_entropy(characters, labels.slots.flatten())]
        parts += [0.2 * F.cross_entropy(self.styles[name](scaled).float(), labels.styles[name]) for name in STYLES]
        return torch.stack(parts).sum()

    def patch_loss(self, tokens: Tensor, labels: SignLabels) -> Tensor:
        return F.cross_entropy(self.patches(tokens[:, 1:]).float().flatten(0, 1), labels.patches.flatten())


# ---------------------------------------------------------------- training


def train(run: Path, steps: int, batch: int) -> None:
    torch.manual_seed(0)
    rng = random.Random()
    plain = stream_signs(rng.randrange(2**32))
    sign_pool, generated_pool = SignPool(draw_groups(rng, plain)), load_generated_pool(run, plain)
    tokenizer, clip = load_tokenizer(run), make_clip(run)
    average = copy.deepcopy(clip)
    width, embed_dim = clip.visual.proj.shape
    heads = AuxiliaryHeads(embed_dim, width)

    def compute_loss() -> Tensor:
        drawn, images = next_batch(batch, sign_pool, generated_pool)
        labels = make_labels(drawn)
        patches = clip.visual(images)
        image_embeddings = clip.project_image(patches).float()
        text_embeddings = clip.encode_text(tokenize(tokenizer, [sign.prompt for sign in drawn])).float()
        reading = heads.embedding_loss(image_embeddings, labels) + heads.embedding_loss(text_embeddings, labels)
        return (
            contrastive_loss(image_embeddings, text_embeddings, clip.logit_scale)
            + 0.5 * reading
            + heads.patch_loss(patches, labels)
        )

    def on_step(step: int) -> None:
        with torch.no_grad():
            clip.logit_scale.clamp_(max=np.log(100))
            pairs = list(zip(average.parameters(), clip.parameters(), strict=True))
            torch._foreach_lerp_([a for a, _ in pairs], [b for _, b in pairs], 1 - min(EMA_DECAY, step / (step + 10)))
        if step % 50 == 0:
            click.echo(f"held out: {measure_retrieval(average, tokenizer, dataset.held_out_signs('calibration'))}")

    modules = {"clip": clip, "average": average, "heads": heads}
    TrainingStage(run / "clip.pt", modules, make_optimizers(clip, heads), steps).run(compute_loss, 2e-3, on_step)


def make_clip(run: Path) -> ClipModel:
    """Random weights, for the tokenizer that the run has saved."""
    settings = copy.deepcopy(CONFIG["model_cfg"])
    settings["text_cfg"].pop("hf_tokenizer_name")
    settings["text_cfg"]["vocab_size"] = len(load_tokenizer(run))
    return ClipModel(**settings)


def load_generated_pool(run: Path, stream: Iterator[dataset.Sign]) -> GeneratedPool:
    """Kept in the run's folder, for it takes minutes to paint."""
    path = run / "painted.pt"
    if not path.exists():
        torch.save(GeneratedPool(NUM_GENERATED, stream), path)
    pool: GeneratedPool = torch.load(path, weights_only=False)
    return pool


def next_batch(batch: int, sign_pool: SignPool, generated_pool: GeneratedPool) -> tuple[list[dataset.Sign], Tensor]:
    num_generated = int(GENERATED_SHARE * batch)
    first, second = sign_pool.batch(batch - num_generated), generated_pool.batch(num_generated)
    return first[0] + second[0], augment(torch.cat([first[1], second[1]]))


def contrastive_loss(image_embeddings: Tensor, text_embeddings: Tensor, logit_scale: Tensor) -> Tensor:
    """CLIP's loss: each picture finds its prompt among the batch's, and each prompt its picture."""
    logits = logit_scale.exp() * image_embeddings @ text_embeddings.T
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def make_optimizers(clip: ClipModel, heads: AuxiliaryHeads) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for the rest."""
    inside = [p for name, p in clip.named_parameters() if p.ndim == 2 and "resblocks" in name]
    chosen = {id(p) for p in inside}
    rest = [p for p in (*clip.parameters(), *heads.parameters()) if id(p) not in chosen]
    return [
        torch.optim.Muon(inside, lr=1e-3, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, betas=(0.9, 0.98), weight_decay=0.01),
    ]


# ---------------------------------------------------------------- held-out signs


@torch.no_grad()
def measure_retrieval(clip: ClipModel, tokenizer: Any, held_out: list[dataset.Sign]) -> str:
    """How many true pictures find their prompt first, and how many prompts their picture."""
    image_embeddings = clip.encode_image(render_images(held_out))
    text_embeddings = clip.encode_text(tokenize(tokenizer, [sign.prompt for sign in held_out]))
    hits = [
        int((logits.argmax(1) == torch.arange(len(logits))).sum())
        for logits in (image_embeddings @ text_embeddings.T, text_embeddings @ image_embeddings.T)
    ]
    return f"{hits[0]} pictures and {hits[1]} prompts of {len(held_out)}"


# ---------------------------------------------------------------- saving


def save(run: Path, folder: Path) -> None:
    """The averaged weights in float16, the configuration and the tokenizer."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    clip = make_clip(run)
    load_modules(run / "clip.pt", average=clip)
    weights = {name: tensor.half().contiguous() for name, tensor in clip.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    settings = copy.deepcopy(CONFIG)
    settings["model_cfg"]["text_cfg"]["vocab_size"] = save_tokenizer(folder)
    (folder / "open_clip_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    for split in get_args(dataset.Split):
        found = measure_retrieval(clip, load_tokenizer(folder), dataset.held_out_signs(split))
        click.echo(f"{split}: {found}")


@click.command(help=__doc__)
@click.option("--run", type=click.Path(path_type=Path, file_okay=False), default=Path("demo/runs"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path("demo/clip"), show_default=True)
@click.option("--steps", type=int, default=1500, show_default=True)
@click.option("--batch", type=int, default=128, show_default=True)
def main(run: Path, output: Path, steps: int, batch: int) -> None:
    run.mkdir(parents=True, exist_ok=True)
    save_tokenizer(run)
    train(run, steps, batch)
    save(run, output)


if __name__ == "__main__":
    main()
