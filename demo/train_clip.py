"""Trains the demo's CLIP, which knows the demo's signs and nothing else: `python -m edgepress.demo.train_clip --help`.

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

from ..sources import DEMO
from . import signs
from .clip_towers import CONFIG, Clip
from .train import CHARACTERS, Job, load_modules, paint, pictures, sign_stream

FOUR = 4  # signs that differ in little
PAINTED = 1024  # signs as the demo's own decoder shows them, made once
FROM_PAINTED = 0.25  # their share of a batch
POOL = 2048  # signs kept at hand; a quarter of what a batch takes is renewed at each step
EMA = 0.995
START, END = "<|start|>", "<|end|>"
STYLES: dict[str, list[Any]] = {
    "cell": list(signs.CELLS),
    "colour": list(signs.COLOURS),
    "ground": list(signs.GROUNDS),
    "pattern": list(signs.PATTERNS),
    "place": list(signs.PLACES),
}
SLOTS = 2 * signs.GRID  # two lines of at most so many characters
NOTHING = len(CHARACTERS)


# ---------------------------------------------------------------- tokenizer


def save_tokenizer(folder: Path) -> int:
    """The demo's vocabulary with a start and an end token, the end having the largest number; returns its size.

    Full width and curly quotes are folded, because open_clip's cleaning does so before it asks a tokenizer.
    """
    from tokenizers import Tokenizer, normalizers, processors

    tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer" / "tokenizer.json"))
    quotes = [normalizers.Replace(quote, '"') for quote in "“”"]
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), *quotes])
    tokenizer.add_special_tokens([START, END])
    ends = [(token, tokenizer.token_to_id(token)) for token in (START, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=ends)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": START,
        "eos_token": END,
        "pad_token": "<|endoftext|>",
        "model_max_length": CONFIG["model_cfg"]["text_cfg"]["context_length"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    return tokenizer.get_vocab_size()


def load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def tokens_of(tokenizer: Any, prompts: list[str]) -> Tensor:
    """Shape (n, context), padded."""
    length = CONFIG["model_cfg"]["text_cfg"]["context_length"]
    made: Tensor = tokenizer(
        prompts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    ).input_ids
    return made


# ---------------------------------------------------------------- data


def fours(rng: random.Random, stream: Iterator[signs.Sign]) -> Iterator[signs.Sign]:
    """A sign; itself with another letter; in other words; and dressed otherwise."""
    while True:
        sign = next(stream)
        longest = signs.longest_line(sign.language, sign.size)
        words = [signs.draw_word(rng, sign.language, min(longest, 5)) for _ in sign.lines]
        yield from (
            sign,
            replace(sign, lines=misspelt(rng, sign)),
            replace(sign, lines=tuple(words)),
            signs.dress(rng, list(sign.lines), sign.language, sign.size),
        )


def misspelt(rng: random.Random, sign: signs.Sign) -> tuple[str, ...]:
    """The lines with one character replaced; never a reserved word."""
    alphabet = signs.HANZI if sign.language == "zh" else signs.LETTERS
    while True:
        lines = list(sign.lines)
        line = rng.randrange(len(lines))
        at = rng.randrange(len(lines[line]))
        lines[line] = lines[line][:at] + rng.choice(alphabet) + lines[line][at + 1 :]
        if lines[line] != sign.lines[line] and lines[line] not in signs.held_out():
            return tuple(lines)


class Pool:
    """Fours of signs and their true pictures as bytes, drawn once and met about four times each."""

    def __init__(self, stream: Iterator[signs.Sign]) -> None:
        self.stream = stream
        self.signs = [next(stream) for _ in range(POOL)]
        self.pictures = torch.cat([as_bytes(pictures(self.signs[at : at + 64])) for at in range(0, POOL, 64)])
        self.oldest = 0

    def batch(self, count: int) -> tuple[list[signs.Sign], Tensor]:
        self.renew(count // 4)
        firsts = random.sample(range(0, POOL, FOUR), count // FOUR)
        chosen = [first + i for first in firsts for i in range(FOUR)]
        return [self.signs[i] for i in chosen], from_bytes(self.pictures[chosen])

    def renew(self, count: int) -> None:
        drawn = [next(self.stream) for _ in range(count // FOUR * FOUR)]
        places = [(self.oldest + i) % POOL for i in range(len(drawn))]
        self.pictures[places] = as_bytes(pictures(drawn))
        for place, sign in zip(places, drawn, strict=True):
            self.signs[place] = sign
        self.oldest = (self.oldest + len(drawn)) % POOL


def as_bytes(images: Tensor) -> Tensor:
    return ((images + 1) * 127.5).round().byte()


def from_bytes(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1


class Painted:
    """Training signs as the demo's decoder or its whole pipeline shows them, made once, in -1..1."""

    def __init__(self, count: int, stream: Iterator[signs.Sign]) -> None:
        from diffusers import ZImagePipeline

        pipeline = ZImagePipeline.from_pretrained(DEMO, torch_dtype=torch.float32)
        self.signs = [next(stream) for _ in range(count)]
        made = [
            paint(pipeline, self.signs[at : at + 16])
            if at < count // 4
            else decoded(pipeline.vae, self.signs[at : at + 16])
            for at in range(0, count, 16)
        ]
        self.pictures = as_bytes(torch.cat(made).clamp(-1, 1))

    def batch(self, count: int) -> tuple[list[signs.Sign], Tensor]:
        chosen = random.sample(range(len(self.signs)), count)
        return [self.signs[i] for i in chosen], from_bytes(self.pictures[chosen])


@torch.no_grad()
def decoded(vae: Any, drawn: list[signs.Sign]) -> Tensor:
    out: Tensor = vae.decode(vae.encode(pictures(drawn)).latent_dist.mean).sample
    return out


def disturbed(images: Tensor) -> Tensor:
    """Noise, blur and a colour cast, each on some of the pictures."""
    n = len(images)
    noise = 0.1 * torch.rand(n, 1, 1, 1) * (torch.rand(n, 1, 1, 1) < 0.5)
    blur = (torch.rand(n, 1, 1, 1) < 0.25).float()
    images = torch.lerp(images, F.avg_pool2d(images, 3, 1, 1, count_include_pad=False), blur)
    images = images * (1 + 0.05 * torch.randn(n, 1, 1, 1)) + 0.03 * torch.randn(n, 3, 1, 1)
    return (images + noise * torch.randn_like(images)).clamp(-1, 1)


# ---------------------------------------------------------------- heads


@dataclass
class Truth:
    """What a batch of signs shows."""

    slots: Tensor  # (n, SLOTS): characters
    patches: Tensor  # (n, 64): the character of each patch
    styles: dict[str, Tensor]  # (n,) each


def truth_of(drawn: list[signs.Sign]) -> Truth:
    slots = torch.full((len(drawn), 2, signs.GRID), NOTHING)
    patches = torch.full((len(drawn), signs.GRID, signs.GRID), NOTHING)
    for i, sign in enumerate(drawn):
        for row, line in enumerate(sign.lines):
            slots[i, row, : len(line)] = torch.tensor([CHARACTERS.index(character) for character in line])
        for cell in sign.cells:
            area = (slice(cell.row, cell.row + cell.height), slice(cell.column, cell.column + cell.width))
            patches[(i, *area)] = CHARACTERS.index(cell.character)
    styles = {
        name: torch.tensor([values.index(style(sign, name)) for sign in drawn]) for name, values in STYLES.items()
    }
    return Truth(slots.flatten(1), patches.flatten(1), styles)


def style(sign: signs.Sign, name: str) -> Any:
    return (sign.language, sign.size) if name == "cell" else getattr(sign, name)


class Heads(nn.Module):
    """What training asks beside the contrast; not kept."""

    def __init__(self, embed_dim: int, width: int) -> None:
        super().__init__()
        self.slots = nn.Linear(embed_dim, SLOTS * (NOTHING + 1))
        self.styles = nn.ModuleDict({name: nn.Linear(embed_dim, len(values)) for name, values in STYLES.items()})
        self.patches = nn.Linear(width, NOTHING + 1)

    def embedding_loss(self, embedding: Tensor, truth: Truth) -> Tensor:
        scaled = embedding * embedding.shape[-1] ** 0.5
        characters = self.slots(scaled).float().view(-1, NOTHING + 1)
        parts = [2 * F.cross_entropy(characters, truth.slots.flatten())]
        parts += [0.2 * F.cross_entropy(self.styles[name](scaled).float(), truth.styles[name]) for name in STYLES]
        return torch.stack(parts).sum()

    def patch_loss(self, tokens: Tensor, truth: Truth) -> Tensor:
        return F.cross_entropy(self.patches(tokens[:, 1:]).float().flatten(0, 1), truth.patches.flatten())


# ---------------------------------------------------------------- training


def train(run: Path, steps: int, batch: int) -> None:
    torch.manual_seed(0)
    rng = random.Random()
    plain = sign_stream(rng.randrange(2**32))
    drawn_pool, painted_pool = Pool(fours(rng, plain)), load_painted(run, plain)
    tokenizer, clip = load_tokenizer(run), new_clip(run)
    average = copy.deepcopy(clip)
    width, embed_dim = clip.visual.proj.shape
    heads = Heads(embed_dim, width)

    def loss_of() -> Tensor:
        drawn, images = next_batch(batch, drawn_pool, painted_pool)
        truth = truth_of(drawn)
        patches = clip.visual(images)
        pictured = clip.project_image(patches).float()
        asked = clip.encode_text(tokens_of(tokenizer, [sign.prompt for sign in drawn])).float()
        reading = heads.embedding_loss(pictured, truth) + heads.embedding_loss(asked, truth)
        return contrast(pictured, asked, clip.logit_scale) + 0.5 * reading + heads.patch_loss(patches, truth)

    def after(step: int) -> None:
        with torch.no_grad():
            clip.logit_scale.clamp_(max=np.log(100))
            pairs = list(zip(average.parameters(), clip.parameters(), strict=True))
            torch._foreach_lerp_([a for a, _ in pairs], [b for _, b in pairs], 1 - min(EMA, step / (step + 10)))
        if step % 50 == 0:
            click.echo(f"held out: {retrieval(average, tokenizer, signs.held_out_signs('calibration'))}")

    modules = {"clip": clip, "average": average, "heads": heads}
    Job(run / "clip.pt", modules, optimizers_of(clip, heads), steps).run(loss_of, 2e-3, after)


def new_clip(run: Path) -> Clip:
    """Random weights, for the tokenizer that the run has saved."""
    settings = copy.deepcopy(CONFIG["model_cfg"])
    settings["text_cfg"].pop("hf_tokenizer_name")
    settings["text_cfg"]["vocab_size"] = len(load_tokenizer(run))
    return Clip(**settings)


def load_painted(run: Path, stream: Iterator[signs.Sign]) -> Painted:
    """Kept in the run's folder, for it takes minutes to paint."""
    path = run / "painted.pt"
    if not path.exists():
        torch.save(Painted(PAINTED, stream), path)
    painted: Painted = torch.load(path, weights_only=False)
    return painted


def next_batch(batch: int, drawn: Pool, painted: Painted) -> tuple[list[signs.Sign], Tensor]:
    shown = int(FROM_PAINTED * batch)
    first, second = drawn.batch(batch - shown), painted.batch(shown)
    return first[0] + second[0], disturbed(torch.cat([first[1], second[1]]))


def contrast(pictured: Tensor, asked: Tensor, logit_scale: Tensor) -> Tensor:
    """CLIP's loss: each picture finds its prompt among the batch's, and each prompt its picture."""
    logits = logit_scale.exp() * pictured @ asked.T
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def optimizers_of(clip: Clip, heads: Heads) -> list[torch.optim.Optimizer]:
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
def retrieval(clip: Clip, tokenizer: Any, held_out: list[signs.Sign]) -> str:
    """How many true pictures find their prompt first, and how many prompts their picture."""
    pictured = clip.encode_image(pictures(held_out))
    asked = clip.encode_text(tokens_of(tokenizer, [sign.prompt for sign in held_out]))
    found = [
        int((logits.argmax(1) == torch.arange(len(logits))).sum())
        for logits in (pictured @ asked.T, asked @ pictured.T)
    ]
    return f"{found[0]} pictures and {found[1]} prompts of {len(held_out)}"


# ---------------------------------------------------------------- saving


def save(run: Path, folder: Path) -> None:
    """The averaged weights in float16, the configuration and the tokenizer."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    clip = new_clip(run)
    load_modules(run / "clip.pt", average=clip)
    weights = {name: tensor.half().contiguous() for name, tensor in clip.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    settings = copy.deepcopy(CONFIG)
    settings["model_cfg"]["text_cfg"]["vocab_size"] = save_tokenizer(folder)
    (folder / "open_clip_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    for split in get_args(signs.Split):
        found = retrieval(clip, load_tokenizer(folder), signs.held_out_signs(split))
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
