"""Recognizes what a message says to do."""

from __future__ import annotations

import re

VALUE = "\N{WHITE SQUARE}"  # stands for a value in a message
# Advice to the user begins a sentence, or follows a comma, a semicolon or "or".
ADVICE = re.compile(
    rf"(?:^|[.:;,({VALUE}] |\b(?:or|and|then|otherwise) )(?:"
    r"Add|Allow|Ask|Change|Check|Choose|Close|Compare|Convert|Copy|Correct|Create|Delete|Download|End|Evaluate|Export|"
    r"Free|Generate|Give|Install|Keep|Leave|Lower|Make|Move|Name|Pass|Put|Quantize|Quote|Raise|Remove|Rename|Replace|Run|"
    r"Save|See|Set|Split|Start|Take|Try|Update|Upgrade|Use|Wait|Write)\b|did you mean|known: |it must be|must be",
    re.IGNORECASE,
)
