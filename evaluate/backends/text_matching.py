"""How much of the wanted text was read: pure functions of the wanted lines and of the lines that OCR gave.

All scores are in 0..1, and 1 is right:

text_accuracy  share of the wanted words (English) or characters (Chinese) that were read, each as often as wanted; in
               mixed text every Chinese character counts as a word.
               Order and extra text do not count. OCR puts spaces between wide-set letters and drops them elsewhere,
               so a word is also read when neighbouring tokens of a line spell it ("G OOD"), and words are all read
               when their line, or the whole text, has the wanted letters ("GRANDOPENING").
ned            1 - edit distance / length of the longer text, spaces removed; the larger one of two comparisons: the
               whole texts, and each wanted line with its own best line, weighted by length. The first forgives lines
               that OCR split or joined, the second forgives extra text.
exact          1 if the whole texts are equal, spaces removed, else 0.

Before all of them text is normalised: NFKC, case folded, punctuation dropped; white space is collapsed in English,
dropped in Chinese, and put around every Chinese character of mixed text. Traditional and simplified characters stay
different.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from ...prompts.prompt import Language, is_cjk

CONSUMED = " "  # stands for tokens that were counted; no token contains a space


def score_text(wanted: Sequence[str], read: Sequence[str], language: Language) -> dict[str, float | None]:
    """All scores; None where nothing is left of the wanted text once it is normalised."""
    wanted = _drop_empty(normalize_text(line, language) for line in wanted)
    read = _drop_empty(normalize_text(line, language) for line in read)
    if not wanted:
        return {"text_accuracy": None, "exact": None, "ned": None}
    recall = character_recall if language == "zh" else word_recall
    return {
        "text_accuracy": recall(wanted, read),
        "exact": float(_join_letters(wanted) == _join_letters(read)),
        "ned": edit_similarity(wanted, read),
    }


def normalize_text(text: str, language: Language) -> str:
    folded = _to_nfkc(_to_nfkc(text).casefold())
    kept = "".join(character for character in folded if not unicodedata.category(character).startswith("P"))
    if language == "mixed":
        kept = "".join(f" {character} " if is_cjk(character) else character for character in kept)
    return _to_nfkc(("" if language == "zh" else " ").join(kept.split()))


def character_recall(wanted: Sequence[str], read: Sequence[str]) -> float:
    """The share of the wanted characters that were read, each as often as wanted."""
    asked = Counter(_join_letters(wanted))
    return (asked & Counter(_join_letters(read))).total() / asked.total()


def word_recall(wanted: Sequence[str], read: Sequence[str]) -> float:
    """The share of the wanted words that were read, each as often as wanted; spaces are forgiven."""
    if _join_letters(wanted) == _join_letters(read):
        return 1.0
    found = max(_count_read_words(wanted, read, whole_lines) for whole_lines in (True, False))
    return found / sum(len(line.split()) for line in wanted)


def edit_similarity(wanted: Sequence[str], read: Sequence[str]) -> float:
    """1 - normalised edit distance, of the whole texts or of the best lines, whichever is larger."""
    whole = similarity(_join_letters(wanted), _join_letters(read))
    return max(
        whole,
        _best_line_similarity([_join_letters([line]) for line in wanted], [_join_letters([line]) for line in read]),
    )


def similarity(one: str, other: str) -> float:
    """1 - edit distance / length of the longer text; 1 for two empty ones."""
    longest = max(len(one), len(other))
    return 1 - edit_distance(one, other) / longest if longest else 1.0


def edit_distance(one: str, other: str) -> int:
    """Levenshtein: insertions, deletions and substitutions of one character."""
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]


def _best_line_similarity(wanted: Sequence[str], read: Sequence[str]) -> float:
    """Mean similarity of each wanted line to the line that is read for it, the likest pairs being matched first."""
    pairs = [(similarity(one, other), i, j) for i, one in enumerate(wanted) for j, other in enumerate(read)]
    matched: dict[int, float] = {}
    used: set[int] = set()
    for likeness, i, j in sorted(pairs, reverse=True):
        if i not in matched and j not in used:
            matched[i] = likeness
            used.add(j)
    return sum(likeness * len(wanted[i]) for i, likeness in matched.items()) / len(_join_letters(wanted))


def _count_read_words(wanted: Sequence[str], read: Sequence[str], whole_lines: bool) -> int:
    """Words found in whole lines first, if asked, then as tokens, then as neighbouring tokens."""
    lines = [line.split() for line in read]
    left = [line for line in wanted if not (whole_lines and _consume_line(line, lines))]
    words = [word for line in left for word in line.split()]
    words = [word for word in words if not _consume_word(word, lines, tokens=1)]
    words = [word for word in words if not _consume_word(word, lines, tokens=len(word))]
    return sum(len(line.split()) for line in wanted) - len(words)


def _consume_line(line: str, lines: list[list[str]]) -> bool:
    """Whether a line of tokens has these letters; if so, it is used up."""
    for tokens in lines:
        if "".join(tokens) == _join_letters([line]):
            tokens[:] = [CONSUMED]
            return True
    return False


def _consume_word(word: str, lines: list[list[str]], tokens: int) -> bool:
    """Whether at most so many neighbouring tokens of a line spell the word; if so, they are used up."""
    for line in lines:
        for start in range(len(line)):
            for end in range(start + 1, min(start + tokens, len(line)) + 1):
                if "".join(line[start:end]) == word:
                    line[start:end] = [CONSUMED]
                    return True
    return False


def _to_nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _join_letters(lines: Sequence[str]) -> str:
    """The whole text without spaces."""
    return "".join("".join(lines).split())


def _drop_empty(lines: Iterable[str]) -> list[str]:
    return [line for line in lines if line]
