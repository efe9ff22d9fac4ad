"""Compares the text that OCR read with the expected text.

All scores are in 0..1, and 1 is best:

text_accuracy  Recall: the share of expected words (English) or characters (Chinese) that were read, counting
               repetitions. In mixed text every Chinese character counts as a word. Order and extra text do not matter.
               OCR inserts spaces between widely spaced letters and drops others. A word therefore also counts as read
               if neighboring tokens of a line spell it ("G OOD"), and a line or the whole text if its letters are
               equal without spaces ("GRANDOPENING").
ned            1 - edit distance / length of the longer text, without spaces. The larger of two comparisons: of the
               whole texts, which tolerates lines that OCR split or joined, and of each expected line with its best
               match, weighted by length, which tolerates extra text.
exact          1 if the whole texts are equal without spaces, otherwise 0.

Text is first normalized: NFKC, case-folded, without punctuation. White space is collapsed in English, removed in
Chinese, and put around every Chinese character of mixed text. Traditional and simplified characters stay different.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

from ...prompts.prompt import Language, is_cjk

CONSUMED = " "  # replaces tokens that were counted; no token contains a space


def score_text(expected: Sequence[str], recognized: Sequence[str], language: Language) -> dict[str, float | None]:
    """Computes all scores.

    Args:
        expected: The lines that the prompt asks for.
        recognized: The lines that OCR read.
        language: Language of the prompt.

    Returns:
        The values by score name; None if nothing is left of the expected text after normalization.
    """
    expected = _drop_empty(normalize_text(line, language) for line in expected)
    recognized = _drop_empty(normalize_text(line, language) for line in recognized)
    if not expected:
        return {"text_accuracy": None, "exact": None, "ned": None}
    recall = character_recall if language == "zh" else word_recall
    return {
        "text_accuracy": recall(expected, recognized),
        "exact": float(_join_letters(expected) == _join_letters(recognized)),
        "ned": edit_similarity(expected, recognized),
    }


def normalize_text(text: str, language: Language) -> str:
    """Normalizes a line of text; see the description of this module."""
    folded = _to_nfkc(_to_nfkc(text).casefold())
    normalized = "".join(character for character in folded if not unicodedata.category(character).startswith("P"))
    if language == "mixed":
        normalized = "".join(f" {character} " if is_cjk(character) else character for character in normalized)
    return _to_nfkc(("" if language == "zh" else " ").join(normalized.split()))


def character_recall(expected: Sequence[str], recognized: Sequence[str]) -> float:
    """Returns the share of the expected characters that were read, counting repetitions."""
    counts = Counter(_join_letters(expected))
    return (counts & Counter(_join_letters(recognized))).total() / counts.total()


def word_recall(expected: Sequence[str], recognized: Sequence[str]) -> float:
    """Returns the share of the expected words that were read, counting repetitions and tolerating wrong spaces."""
    if _join_letters(expected) == _join_letters(recognized):
        return 1.0
    num_read = max(_count_read_words(expected, recognized, whole_lines) for whole_lines in (True, False))
    return num_read / sum(len(line.split()) for line in expected)


def edit_similarity(expected: Sequence[str], recognized: Sequence[str]) -> float:
    """Returns 1 - normalized edit distance, of the whole texts or of the best lines, whichever is larger."""
    whole_text = similarity(_join_letters(expected), _join_letters(recognized))
    lines = [_join_letters([line]) for line in expected], [_join_letters([line]) for line in recognized]
    return max(whole_text, _best_line_similarity(*lines))


def similarity(a: str, b: str) -> float:
    """Returns 1 - edit distance / length of the longer text; 1 for two empty texts."""
    max_length = max(len(a), len(b))
    return 1 - edit_distance(a, b) / max_length if max_length else 1.0


def edit_distance(a: str, b: str) -> int:
    """Returns the Levenshtein distance: insertions, deletions and substitutions of single characters."""
    row = list(range(len(b) + 1))
    for i, char_a in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, char_b in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (char_a != char_b))
    return row[-1]


def _best_line_similarity(expected: Sequence[str], recognized: Sequence[str]) -> float:
    """Returns the mean similarity of expected and recognized lines, matched greedily and weighted by length."""
    pairs = [(similarity(a, b), i, j) for i, a in enumerate(expected) for j, b in enumerate(recognized)]
    matched: dict[int, float] = {}
    used: set[int] = set()
    for value, i, j in sorted(pairs, reverse=True):
        if i not in matched and j not in used:
            matched[i] = value
            used.add(j)
    return sum(value * len(expected[i]) for i, value in matched.items()) / len(_join_letters(expected))


def _count_read_words(expected: Sequence[str], recognized: Sequence[str], whole_lines: bool) -> int:
    """Counts words that were read: in whole lines (if enabled), then as tokens, then as neighboring tokens."""
    lines = [line.split() for line in recognized]
    remaining = [line for line in expected if not (whole_lines and _consume_line(line, lines))]
    missing = [word for line in remaining for word in line.split()]
    missing = [word for word in missing if not _consume_word(word, lines, max_tokens=1)]
    missing = [word for word in missing if not _consume_word(word, lines, max_tokens=len(word))]
    return sum(len(line.split()) for line in expected) - len(missing)


def _consume_line(line: str, lines: list[list[str]]) -> bool:
    """Consumes a line of tokens that has the letters of `line`, and returns whether there was one."""
    for tokens in lines:
        if "".join(tokens) == _join_letters([line]):
            tokens[:] = [CONSUMED]
            return True
    return False


def _consume_word(word: str, lines: list[list[str]], max_tokens: int) -> bool:
    """Consumes neighboring tokens of a line that spell `word`, and returns whether there were any."""
    for line in lines:
        for start in range(len(line)):
            for end in range(start + 1, min(start + max_tokens, len(line)) + 1):
                if "".join(line[start:end]) == word:
                    line[start:end] = [CONSUMED]
                    return True
    return False


def _to_nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _join_letters(lines: Sequence[str]) -> str:
    """Returns the whole text without spaces."""
    return "".join("".join(lines).split())


def _drop_empty(lines: Iterable[str]) -> list[str]:
    return [line for line in lines if line]
