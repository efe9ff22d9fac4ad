"""CLIP-T: the cosine of the CLIP embeddings of a picture and its prompt; neither clamped nor multiplied by 100.

A prompt that is longer than the CLIP reads is left out and said to be, for CLIP would read its beginning alone. A CLIP
that was trained on English says little of Chinese prompts.
"""

from __future__ import annotations

from ...prompts import Prompt
from ..clip.embed import clip_of, cosine
from ..clip.spec import HOW
from ..registry import Picture, PictureMetric, Reading, Score, Settings, Unavailable

NAME, TITLE = "clip_t", "CLIP-T"


def make(settings: Settings) -> PictureMetric | Unavailable:
    """With the CLIP that the settings name.

    Raises:
        UserError: they name one that cannot be loaded.
    """
    if settings.clip is None:
        return _unavailable(f"no CLIP was named; {HOW}")
    clip = clip_of(settings.clip)
    if not clip.reads:
        return _unavailable("the folder of CLIP holds no tokenizer; add it, or install open-clip-torch")

    def measure(picture: Picture, prompt: Prompt) -> Reading:
        if not prompt.prompt.strip():
            return Reading({NAME: None}, {})
        asked = clip.text(prompt.prompt)
        if asked is None:
            return Reading({NAME: None}, {NAME: ("the prompt is longer than this CLIP reads",)})
        return Reading({NAME: cosine(clip.picture(picture), asked)}, {})

    return PictureMetric(
        name=NAME,
        scores=(Score(name=NAME, title=f"{TITLE} [{clip.label}]"),),
        version=lambda: clip.version,
        measure=measure,
    )


def _unavailable(reason: str) -> Unavailable:
    return Unavailable(NAME, (Score(name=NAME, title=TITLE),), reason)
