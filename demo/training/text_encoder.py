"""Trains the text encoder to predict the content of a sign from its prompt."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..signs import dataset
from .images import stream_signs
from .stage import DEVICE, TrainingStage
from .tokenizer import TOKENS_AFTER_TEXT, load_tokenizer, token_ids

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
