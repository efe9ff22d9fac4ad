"""Trains the demo pipeline in stages.

    python -m edgepress.demo.training.train_pipeline --stage STAGE

The stages, in this order:

    tokenizer   byte-level BPE over the prompts
    vae         AutoencoderKL, on crops of signs; then mean and standard deviation of the latents
    text        Qwen3 learns to predict, at each character's token, the character, its position and its style
    dit         ZImageTransformer2DModel, together with Qwen3, by flow matching
    decoder     sharpens the VAE's decoder; the encoder, and with it the latents, stay
    save        writes the bfloat16 diffusers folder

Data is drawn on the fly by demo/signs/dataset.py. Every stage saves a checkpoint every few minutes under --run, resumes
from it, prints its loss, and writes sample sheets. It runs on CPU or CUDA with bfloat16 autocast.
"""

from __future__ import annotations

import copy
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...prompts.prompt import save_prompts
from ..signs import dataset

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SAVE_INTERVAL_S = 180.0  # seconds


def render_images(batch: list[dataset.Sign], random_colours: bool = False) -> Tensor:
    """Renders signs, with random dark text colours if asked for; returns images in -1..1, shape (n, 3, 128, 128)."""
    rng = np.random.default_rng()
    colours = rng.integers(0, 220, (len(batch), 3)).tolist() if random_colours else [None] * len(batch)
    stack = np.stack([dataset.render_sign(sign, rng, colour) for sign, colour in zip(batch, colours, strict=True)])
    return (torch.from_numpy(stack).to(DEVICE).float() / 127.5 - 1).permute(0, 3, 1, 2)


def save_sheet(images: Tensor, path: Path, columns: int = 8) -> None:
    """Writes images in -1..1, shape (n, 3, h, w), as one PNG."""
    from PIL import Image

    rows = [torch.cat(list(row), dim=2) for row in images.split(columns) if len(row) == columns]
    sheet = torch.cat(rows, dim=1).permute(1, 2, 0)
    Image.fromarray(((sheet.clamp(-1, 1) + 1) * 127.5).round().byte().cpu().numpy()).save(path)


@dataclass
class TrainingStage:
    """A resumable training stage.

    Attributes:
        path: File of its checkpoint.
        modules: Modules by name, with their state in the checkpoint.
        optimizers: Optimizers, with their state in the checkpoint.
        steps: Number of steps to train.
        step: Number of finished steps.
    """

    path: Path
    modules: dict[str, nn.Module]
    optimizers: list[torch.optim.Optimizer]
    steps: int
    step: int = 0

    def resume(self) -> None:
        """Loads the checkpoint, if there is one."""
        if self.path.exists():
            state = torch.load(self.path, map_location=DEVICE, weights_only=True)
            for name, module in self.modules.items():
                module.load_state_dict(state[name])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.step = state["step"]

    def save(self) -> None:
        """Writes the checkpoint atomically."""
        state: dict[str, Any] = {name: module.state_dict() for name, module in self.modules.items()}
        state |= {"optimizers": [optimizer.state_dict() for optimizer in self.optimizers], "step": self.step}
        new = self.path.with_suffix(".new")
        torch.save(state, new)
        new.replace(self.path)

    def run(
        self, compute_loss: Callable[[], Tensor], rate: float, on_step: Callable[[int], None] | None = None
    ) -> None:
        """Trains with a one-cycle schedule (5 % warm-up, cosine decay to 2 %) and clipped gradients.

        Args:
            compute_loss: Draws a batch and returns its loss.
            rate: Peak learning rate; a parameter group may scale it with the key `scale`.
            on_step: Called with the number of finished steps.
        """
        self.resume()
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        parameters = [p for group in groups for p in group["params"]]
        saved = started = time.monotonic()
        first, losses = self.step, []
        while self.step < self.steps:
            factor = min(1.0, (self.step + 1) / (0.05 * self.steps)) * cosine_decay(self.step / self.steps)
            for group in groups:
                group["lr"] = rate * factor * group.get("scale", 1.0)
            with torch.autocast(DEVICE.type, torch.bfloat16):
                loss = compute_loss()
            for parameter in parameters:
                parameter.grad = None
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
            self.step += 1
            if on_step:
                on_step(self.step)
            losses.append(loss.item())
            if self.step % 50 == 0:
                pace = (time.monotonic() - started) / (self.step - first)
                click.echo(
                    f"{self.path.stem} {self.step}/{self.steps} loss {np.mean(losses[-50:]):.4f} {pace:.2f} s/step"
                )
            if time.monotonic() - saved > SAVE_INTERVAL_S:
                self.save()
                saved = time.monotonic()
        self.save()


def cosine_decay(progress: float, floor: float = 0.02) -> float:
    """Returns the factor of the learning rate, from 1 to `floor`."""
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def stream_signs(seed: int) -> Iterator[dataset.Sign]:
    """Yields random training signs."""
    rng = random.Random(seed)
    while True:
        yield dataset.draw_sign(rng)


# ---------------------------------------------------------------- VAE


def make_vae() -> Any:
    """Returns an untrained VAE."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(32, 64, 96, 96),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=16,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
    ).to(DEVICE, memory_format=torch.channels_last)


def draw_crops(rng: np.random.Generator, stream: Iterator[dataset.Sign], count: int, random_colours: bool) -> Tensor:
    """Draws 64-pixel crops on the patch grid. Half of them may have random colours, so that latents hold any colour."""
    size = 64
    batch = [next(stream) for _ in range(count)]
    images = torch.cat([render_images(batch[::2]), render_images(batch[1::2], random_colours)])
    offsets = rng.integers(0, (images.shape[-1] - size) // 16 + 1, (count, 2)) * 16
    patches = [image[:, y : y + size, x : x + size] for image, (y, x) in zip(images, offsets, strict=True)]
    return torch.stack(patches).contiguous(memory_format=torch.channels_last)


def image_loss(out: Tensor, target: Tensor) -> Tensor:
    """Returns L1 + 2 MSE + L1 of horizontal and vertical differences, which matter for OCR."""
    error = out - target
    edges: Tensor = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 2 * error.square().mean() + 0.5 * edges


def train_vae(run: Path, steps: int, batch: int) -> None:
    """Trains the VAE and measures its latents."""
    torch.manual_seed(0)
    vae = make_vae()
    rng, stream = np.random.default_rng(), stream_signs(random.randrange(2**32))

    def compute_loss() -> Tensor:
        target = draw_crops(rng, stream, batch, random_colours=True)
        latent = vae.encode(target).latent_dist.mean
        out = vae.decode(latent + 0.1 * torch.randn_like(latent)).sample
        loss: Tensor = image_loss(out.float(), target) + 1e-3 * latent.float().square().mean()
        return loss

    optimizer = torch.optim.AdamW(vae.parameters(), betas=(0.9, 0.95), weight_decay=0.0)
    TrainingStage(run / "vae.pt", {"vae": vae}, [optimizer], steps).run(compute_loss, 3e-3)
    measure_latents(run, vae)
    report_vae(run, vae)


@torch.no_grad()
def measure_latents(run: Path, vae: Any) -> None:
    """Writes mean and standard deviation of the latents of 256 signs, which normalise the transformer's targets."""
    rng = random.Random(7)
    images = render_images([dataset.draw_sign(rng) for _ in range(256)])
    latent = torch.cat([vae.encode(part).latent_dist.mean for part in images.split(32)])
    (run / "latents.json").write_text(json.dumps({"mean": latent.mean().item(), "std": latent.std().item()}))


@torch.no_grad()
def report_vae(run: Path, vae: Any) -> None:
    """Prints the reconstruction PSNR, and writes a sheet of original and decoded signs."""
    rng = random.Random(8)
    images = render_images([dataset.draw_sign(rng) for _ in range(32)])
    out = vae.decode(vae.encode(images).latent_dist.mean).sample
    psnr = 10 * torch.log10(4 / (out.clamp(-1, 1) - images).square().mean(dim=(1, 2, 3)))
    click.echo(f"vae: {psnr.mean():.2f} dB")
    save_sheet(torch.cat([images[:16], out[:16]]), run / "vae.png")


# ---------------------------------------------------------------- tokenizer


CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TOKENS_AFTER_TEXT = 6  # closing quote, <|im_end|>, newline, <|im_start|>, assistant, newline


def train_tokenizer(run: Path) -> None:
    """Trains a byte-level BPE that never merges capitals or Chinese characters, so that words stay spelled out."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    bpe = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(r"[A-Z]|\p{Han}| ?[a-z]+|\n| ?[^\sA-Za-z\p{Han}]|\s+"), behavior="isolated")
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_of])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=640, initial_alphabet=alphabet, show_progress=False)
    rng = random.Random(0)
    bpe.train_from_iterator((f"user\n{dataset.draw_sign(rng).prompt}\nassistant" for _ in range(5000)), trainer)
    trained = json.loads(bpe.to_str())["model"]
    merges = [tuple(merge) for merge in trained["merges"]]
    tokenizer = Qwen2Tokenizer(vocab=trained["vocab"], merges=merges)
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>", "additional_special_tokens": SPECIAL[1:]})
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.model_max_length = 512
    tokenizer.padding_side = "right"
    tokenizer.save_pretrained(run / "tokenizer")
    max_tokens = max(len(token_ids(tokenizer, dataset.draw_sign(rng).prompt)) for _ in range(5000))
    click.echo(f"tokenizer: {len(tokenizer)} entries, longest prompt {max_tokens} tokens")


def load_tokenizer(run: Path) -> Any:
    """Loads the trained tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(run / "tokenizer")


def token_ids(tokenizer: Any, prompt: str) -> list[int]:
    """Returns the tokens of a prompt in the chat template."""
    message = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True, enable_thinking=True)
    return list(tokenizer(text).input_ids)


# ---------------------------------------------------------------- text encoder


CHARACTERS = dataset.LETTERS + dataset.HANZI
# Classifiers of the text stage, on the features at a character's token, with their number of classes.
CLASSIFIERS = {
    "character": len(CHARACTERS),
    "column": dataset.GRID,
    "row": dataset.GRID,
    "cell": len(dataset.CELLS),
    "colour": len(dataset.COLOURS),
    "background": len(dataset.BACKGROUNDS),
    "pattern": len(dataset.PATTERNS),
}


def make_text_encoder(vocabulary: int) -> Any:
    """Returns an untrained text encoder for a vocabulary of this size."""
    from transformers import Qwen3Config, Qwen3Model

    config = Qwen3Config(
        vocab_size=vocabulary,
        hidden_size=256,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        intermediate_size=768,
        tie_word_embeddings=True,
        max_position_embeddings=512,
        use_cache=False,
    )
    return Qwen3Model(config).to(DEVICE)


def encode_prompts(encoder: Any, tokenizer: Any, signs: list[dataset.Sign]) -> tuple[Tensor, list[int]]:
    """Returns features (n, tokens, 256) of the layer that the pipeline uses, and each prompt's number of tokens."""
    ids = [token_ids(tokenizer, sign.prompt) for sign in signs]
    lengths = [len(row) for row in ids]
    table = torch.zeros(len(ids), max(lengths), dtype=torch.long)
    mask = torch.zeros_like(table, dtype=torch.bool)
    for i, row in enumerate(ids):
        table[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = True
    out = encoder(input_ids=table.to(DEVICE), attention_mask=mask.to(DEVICE), output_hidden_states=True)
    return out.hidden_states[-2], lengths


def list_labels(sign: dataset.Sign) -> list[list[int]]:
    """Returns, for each character of the sign, its class for each classifier."""
    style = [
        list(dataset.CELLS).index((sign.language, sign.size)),
        list(dataset.COLOURS).index(sign.colour),
        list(dataset.BACKGROUNDS).index(sign.background),
        list(dataset.PATTERNS).index(sign.pattern),
    ]
    return [[CHARACTERS.index(cell.character), cell.column, cell.row, *style] for cell in sign.cells]


def train_text(run: Path, steps: int, batch: int) -> None:
    """Trains the text encoder with classifiers on its features."""
    torch.manual_seed(1)
    tokenizer = load_tokenizer(run)
    encoder = make_text_encoder(len(tokenizer))
    heads = nn.ModuleDict({name: nn.Linear(256, count) for name, count in CLASSIFIERS.items()}).to(DEVICE)
    stream = stream_signs(random.randrange(2**32))

    def compute_loss() -> Tensor:
        drawn = [next(stream) for _ in range(batch)]
        features, lengths = encode_prompts(encoder, tokenizer, drawn)
        positions, labels = [], []
        for i, (sign, length) in enumerate(zip(drawn, lengths, strict=True)):
            first = length - TOKENS_AFTER_TEXT - len(sign.text)
            positions += [(i, first + k) for k, character in enumerate(sign.text) if character != " "]
            labels += list_labels(sign)
        rows, columns = torch.tensor(positions).T
        selected = features[rows, columns]
        targets = torch.tensor(labels, device=DEVICE)
        parts = [F.cross_entropy(heads[name](selected).float(), targets[:, k]) for k, name in enumerate(CLASSIFIERS)]
        return torch.stack(parts).mean()

    optimizer = torch.optim.AdamW([*encoder.parameters(), *heads.parameters()], betas=(0.9, 0.95), weight_decay=0.01)
    TrainingStage(run / "text.pt", {"text": encoder, "heads": heads}, [optimizer], steps).run(compute_loss, 2e-3)


# ---------------------------------------------------------------- transformer


POOL_SIZE = 2048  # encoded signs; a quarter of a batch is replaced at each step
EMA_DECAY = 0.998


def make_dit() -> Any:
    """Returns an untrained transformer."""
    from diffusers import ZImageTransformer2DModel

    return ZImageTransformer2DModel(
        in_channels=16,
        dim=384,
        n_layers=5,
        n_refiner_layers=1,
        n_heads=6,
        n_kv_heads=6,
        cap_feat_dim=256,
        axes_dims=[16, 24, 24],
        axes_lens=[256, 64, 64],
    ).to(DEVICE)


class RealRotaryProcessor:
    """The transformer's attention with rotary embedding in real numbers, which can be compiled. For training only."""

    def __call__(self, attn: Any, hidden_states: Tensor, freqs_cis: Tensor, **_: Any) -> Tensor:
        cos, sin = freqs_cis.real.unsqueeze(2), freqs_cis.imag.unsqueeze(2)

        def rotate(x: Tensor) -> Tensor:
            a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
            return torch.stack([a * cos - b * sin, a * sin + b * cos], dim=-1).flatten(3).type_as(x).transpose(1, 2)

        query, key, value = (
            layer(hidden_states).unflatten(-1, (attn.heads, -1)) for layer in (attn.to_q, attn.to_k, attn.to_v)
        )
        query, key = rotate(attn.norm_q(query)), rotate(attn.norm_k(key))
        out = F.scaled_dot_product_attention(query, key, value.transpose(1, 2))
        projected: Tensor = attn.to_out[0](out.transpose(1, 2).flatten(2))
        return projected


def build_pipeline(run: Path, vae: Any, text: Any, dit: Any) -> Any:
    """Returns the pipeline of the components, with the VAE normalised by the measured latents."""
    from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline

    statistics = json.loads((run / "latents.json").read_text())
    vae.register_to_config(scaling_factor=1 / statistics["std"], shift_factor=statistics["mean"])
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)
    return ZImagePipeline(
        scheduler=scheduler, vae=vae, text_encoder=text, tokenizer=load_tokenizer(run), transformer=dit
    )


def generate_images(pipeline: Any, batch: list[dataset.Sign]) -> Tensor:
    """Generates images of the signs' prompts in -1..1, shape (n, 3, 128, 128). The position seeds the noise."""
    pipeline.set_progress_bar_config(disable=True)
    with torch.no_grad():
        images: Tensor = pipeline(
            [sign.prompt for sign in batch],
            height=128,
            width=128,
            num_inference_steps=8,
            guidance_scale=0.0,
            max_sequence_length=64,
            generator=[torch.Generator().manual_seed(i) for i in range(len(batch))],
            output_type="pt",
        ).images
    return images * 2 - 1


class LatentPool:
    """Signs and their normalised latents (16, 16, 16), each encoded once and used about four times."""

    def __init__(self, run: Path, vae: Any) -> None:
        statistics = json.loads((run / "latents.json").read_text())
        self.mean, self.std = statistics["mean"], statistics["std"]
        self.vae, self.stream = vae.eval(), stream_signs(random.randrange(2**32))
        self.signs: list[dataset.Sign] = []
        self.latents = torch.empty(POOL_SIZE, 16, 16, 16, device=DEVICE)
        self.oldest = 0
        for _ in range(POOL_SIZE // 32):
            self.renew(32)

    @torch.no_grad()
    def renew(self, count: int) -> None:
        """Replaces the oldest signs."""
        drawn = [next(self.stream) for _ in range(count)]
        with torch.autocast(DEVICE.type, torch.bfloat16):
            images = render_images(drawn).contiguous(memory_format=torch.channels_last)
            latents = (self.vae.encode(images).latent_dist.mean.float() - self.mean) / self.std
        for sign, latent in zip(drawn, latents, strict=True):
            self.latents[self.oldest] = latent
            self.signs[self.oldest : self.oldest + 1] = [sign]
            self.oldest = (self.oldest + 1) % POOL_SIZE

    def batch(self, count: int) -> tuple[list[dataset.Sign], Tensor]:
        """Returns random signs and their latents, and replaces a quarter as many."""
        self.renew(count // 4)
        chosen = random.sample(range(POOL_SIZE), count)
        return [self.signs[i] for i in chosen], self.latents[chosen]


def draw_noise_levels(count: int) -> Tensor:
    """Draws sigmas: 70 % distributed as in sampling (shift 3), 30 % uniform."""
    u = torch.rand(count, device=DEVICE)
    return torch.where(torch.rand(count, device=DEVICE) < 0.7, 3 * u / (1 + 2 * u), u)


def make_optimizers(dit: Any, text: Any) -> list[torch.optim.Optimizer]:
    """Returns Muon for the matrices inside the blocks, AdamW for the rest; the text encoder gets 0.3 of the rate."""
    inside = [p for n, p in dit.named_parameters() if p.ndim == 2 and ("attention" in n or "feed_forward" in n)]
    chosen = {id(p) for p in inside}
    rest = [p for p in dit.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(inside, lr=1e-3, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [{"params": rest}, {"params": text.parameters(), "scale": 0.3}], betas=(0.9, 0.95), weight_decay=0.01
        ),
    ]


def load_modules(path: Path, **modules: nn.Module) -> None:
    """Loads modules from a checkpoint by name."""
    state = torch.load(path, map_location=DEVICE, weights_only=True)
    for name, module in modules.items():
        module.load_state_dict(state[name])


def train_dit(run: Path, steps: int, batch: int) -> None:
    """Trains the transformer and the text encoder by flow matching."""
    torch.manual_seed(2)
    tokenizer = load_tokenizer(run)
    vae, text, dit = make_vae(), make_text_encoder(len(tokenizer)), make_dit()
    load_modules(run / "vae.pt", vae=vae)
    load_modules(run / "text.pt", text=text)
    averages = {"text_ema": copy.deepcopy(text), "dit_ema": copy.deepcopy(dit)}
    for block in (*dit.noise_refiner, *dit.context_refiner, *dit.layers):
        block.attention.set_processor(RealRotaryProcessor())
        block.compile()
    pool = LatentPool(run, vae)
    sheet = dataset.held_out_signs("calibration")[:32]

    def compute_loss() -> Tensor:
        drawn, clean = pool.batch(batch)
        features, lengths = encode_prompts(text, tokenizer, drawn)
        sigma = draw_noise_levels(batch)
        noise = torch.randn_like(clean)
        noisy = clean + sigma[:, None, None, None] * (noise - clean)
        captions = [row[:length] for row, length in zip(features, lengths, strict=True)]
        out = dit(list(noisy.unsqueeze(2)), 1 - sigma, captions, return_dict=False)[0]
        return F.mse_loss(torch.stack(out).squeeze(2).float(), clean - noise)

    def on_step(step: int) -> None:
        for average, module in ((averages["text_ema"], text), (averages["dit_ema"], dit)):
            pairs = list(zip(average.parameters(), module.parameters(), strict=True))
            with torch.no_grad():
                torch._foreach_lerp_(
                    [a for a, _ in pairs], [b for _, b in pairs], 1 - min(EMA_DECAY, step / (step + 10))
                )
        if step % 500 == 0:
            pipeline = build_pipeline(run, vae, averages["text_ema"], averages["dit_ema"])
            save_sheet(generate_images(pipeline, sheet), run / f"dit-{step:06d}.png")

    modules = {"text": text, "dit": dit, **averages}
    TrainingStage(run / "dit.pt", modules, make_optimizers(dit, text), steps).run(compute_loss, 2e-3, on_step)


# ---------------------------------------------------------------- decoder, and saving


def train_decoder(run: Path, steps: int, batch: int) -> None:
    """Sharpens the decoder on crops without random colours. The encoder, and so the latents, stay."""
    torch.manual_seed(3)
    vae = make_vae()
    load_modules(run / "vae.pt", vae=vae)
    vae.encoder.requires_grad_(False)
    rng, stream = np.random.default_rng(), stream_signs(random.randrange(2**32))

    def compute_loss() -> Tensor:
        target = draw_crops(rng, stream, batch, random_colours=False)
        with torch.no_grad():
            latent = vae.encode(target).latent_dist.mean
        out = vae.decode(latent + 0.1 * torch.randn_like(latent)).sample
        return image_loss(out.float(), target)

    optimizer = torch.optim.AdamW(vae.decoder.parameters(), betas=(0.9, 0.95), weight_decay=0.0)
    TrainingStage(run / "decoder.pt", {"vae": vae}, [optimizer], steps).run(compute_loss, 1.5e-3)
    report_vae(run, vae)


def save_pipeline(run: Path, folder: Path) -> None:
    """Writes the trained components as one bfloat16 diffusers folder, with the held-out prompt sets."""
    vae, text, dit = make_vae(), make_text_encoder(len(load_tokenizer(run))), make_dit()
    load_modules(run / ("decoder.pt" if (run / "decoder.pt").exists() else "vae.pt"), vae=vae)
    state = torch.load(run / "dit.pt", map_location=DEVICE, weights_only=True)
    text.load_state_dict(state["text_ema"])
    dit.load_state_dict(state["dit_ema"])
    vae.register_to_config(sample_size=dataset.GRID * dataset.PATCH)
    pipeline = build_pipeline(run, vae, text, dit).to(torch.bfloat16)
    pipeline.save_pretrained(folder)
    save_prompt_sets(folder / "prompts")


def save_prompt_sets(folder: Path) -> None:
    """Writes the held-out prompt sets."""
    folder.mkdir(exist_ok=True)
    for split in get_args(dataset.Split):
        save_prompts(dataset.prompt_set(split), folder / f"{split}.jsonl")


@click.command(help=__doc__)
@click.option("--stage", type=click.Choice(["tokenizer", "vae", "text", "dit", "decoder", "save"]), required=True)
@click.option("--run", type=click.Path(path_type=Path, file_okay=False), default=Path("demo/runs"), show_default=True)
@click.option("--output", type=click.Path(path_type=Path), default=Path("demo/pipeline"), show_default=True)
@click.option("--steps", type=int)
@click.option("--batch", type=int)
def main(stage: str, run: Path, output: Path, steps: int | None, batch: int | None) -> None:
    run.mkdir(parents=True, exist_ok=True)
    if stage == "tokenizer":
        train_tokenizer(run)
    elif stage == "vae":
        train_vae(run, steps or 1300, batch or 32)
    elif stage == "text":
        train_text(run, steps or 600, batch or 128)
    elif stage == "decoder":
        train_decoder(run, steps or 800, batch or 32)
    elif stage == "save":
        save_pipeline(run, output)
    else:
        train_dit(run, steps or 2400, batch or 48)


if __name__ == "__main__":
    main()
