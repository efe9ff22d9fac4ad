"""Advice on prompts: what a text encoder reads badly, found by looking at the text alone."""

from __future__ import annotations

import re

MAX_SHOWN = 3  # examples in a sentence
CONTEXT = 4  # characters before and after a place that is shown
# Words that praise an image and name nothing that could be seen in it.
ABSTRACT_WORDS = (
    "amazing", "awesome", "beautiful", "best quality", "breathtaking", "masterpiece", "perfect", "stunning",
    "super", "trending", "ultra detailed", "wonderful",
)  # fmt: skip
ABSTRACT_HAN = ("最好", "完美", "惊艳", "震撼", "高级感", "杰作", "绝美", "超级")
HAN = r"\u3400-\u4dbf\u4e00-\u9fff"
MIXED = re.compile(rf"[{HAN}][A-Za-z]{{2,}}|[A-Za-z]{{2,}}[{HAN}]")
QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|「[^」]*」|'[^']*'")


def advise_on_prompt(text: str) -> list[str]:
    """Advises on a prompt; text in quotation marks, which an image shows, is left alone.

    Args:
        text: The prompt.

    Returns:
        Sentences, none for most prompts.
    """
    described = QUOTED.sub('""', text)
    return [*_advise_on_words(described), *_advise_on_scripts(described)]


def _advise_on_words(text: str) -> list[str]:
    lowered = text.lower()
    praise = [word for word in ABSTRACT_WORDS if re.search(rf"\b{word}\b", lowered)]
    praise += [word for word in ABSTRACT_HAN if word in text]
    if not praise:
        return []
    listed = ", ".join(f'"{word}"' for word in praise[:MAX_SHOWN])
    return [f"{listed}: such words name nothing to see. Describe the subject, its material, light and background."]


def _advise_on_scripts(text: str) -> list[str]:
    places = [text[max(match.start() - CONTEXT, 0) : match.end() + CONTEXT] for match in MIXED.finditer(text)]
    if not places:
        return []
    listed = ", ".join(f'"{place.strip()}"' for place in places[:MAX_SHOWN])
    return [f"Chinese and Latin letters meet without a space in {listed}. Put a space or a comma between them."]
