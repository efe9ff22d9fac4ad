"""Real sentences: the English prompts of the sets that come with edgepress."""

from __future__ import annotations

import random

from ...prompts.sets import load_prompt_set

PROMPT_SETS = ("calibration", "evaluation", "compose", "photo", "style", "text-en", "smoke")


def load_sentences() -> list[str]:
    """Returns different sentences in a fixed random order."""
    prompts = [prompt for name in PROMPT_SETS for prompt in load_prompt_set(name) if prompt.language == "en"]
    sentences = sorted({prompt.prompt for prompt in prompts})
    random.Random(0).shuffle(sentences)
    return sentences
