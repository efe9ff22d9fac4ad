"""Trains the tokenizer, which spells words out."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import click

from ..signs import dataset

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
