"""How near answers come to the data's own: exact match, F1 and ROUGE-L, by torchmetrics.

The library's own ways of taking a text apart are made for English: its ROUGE drops every letter
beyond a to z, its F1 takes a Chinese sentence for one word. So words are told apart here, for all
scripts, and handed over as numbers, which its ways leave as they are.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from training_backend.protocol import Score, ScoreName

NAMES: tuple[ScoreName, ...] = ("exact_match", "f1", "rouge_l")
SURE_ROWS = 10  # fewer say nothing about how sure a mean is
MOST_WORDS = 1_000  # of a text; ROUGE-L takes the product of both texts' words in time
# Minus sign, decimal point and separators belong to a number, so that -5 is not 5 nor 3.1 31.
_NUMBER = re.compile(r"((?<!\w)-?\d+(?:[.,:]\d+)*(?!\w))")
# Scripts that write no spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, Japanese, Chinese.
_UNSPACED = re.compile(
    "([\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff])"
)


def words(text: str) -> list[str]:
    """A text's words, without case and punctuation.

    A word is a run of letters with their accents, a number with its sign and separators, a
    symbol, or one character of a script that writes no spaces.
    """
    text = unicodedata.normalize("NFKC", text).casefold().replace("\u2212", "-")
    found: list[str] = []
    for place, piece in enumerate(_NUMBER.split(text)):
        found += [piece] if place % 2 else "".join(map(_spaced, piece)).split()
    return found


def _spaced(character: str) -> str:
    kind = unicodedata.category(character)
    if kind[0] in "LMN":
        return _UNSPACED.sub(r" \1 ", character)
    return f" {character} " if kind in ("Sm", "Sc", "So") else " "


def measure(answer: str, reference: str) -> dict[ScoreName, float]:
    """Each measure of one answer, from 0 to 1.

    Exact match and F1 as SQuAD's (arXiv:1606.05250) but for English articles, which count like
    any word; ROUGE-L as its F-measure (Lin 2004) on words without stemming. A text that
    is all punctuation is taken as it is.
    """
    from torchmetrics.functional.text import rouge_score, squad

    numbers: dict[str, str] = {}
    both = []
    for text in (answer, reference):
        parts = (words(text) or list(text.strip()))[:MOST_WORDS]
        both.append(" ".join(numbers.setdefault(part, str(len(numbers))) for part in parts))
    given, wanted = both
    found = squad(
        {"prediction_text": given, "id": "row"},
        {"answers": {"answer_start": [0], "text": [wanted]}, "id": "row"},
    )
    overlap = rouge_score(given, wanted, rouge_keys="rougeL")
    return {
        "exact_match": float(found["exact_match"]) / 100,
        "f1": float(found["f1"]) / 100,
        "rouge_l": float(overlap["rougeL_fmeasure"]),
    }


def summary(
    before: Sequence[dict[ScoreName, float]] | None, after: Sequence[dict[ScoreName, float]]
) -> tuple[Score, ...]:
    """The means over the rows, and how sure their difference is."""
    scores = []
    for name in NAMES:
        ours = np.array([row[name] for row in after])
        mean = float(ours.mean())
        if before is None:
            scores.append(Score(name=name, before=None, after=mean))
            continue
        theirs = np.array([row[name] for row in before])
        gain = ours - theirs
        sure = len(gain) >= SURE_ROWS
        margin = 1.96 * float(gain.std(ddof=1)) / len(gain) ** 0.5 if sure else None
        scores.append(Score(name=name, before=float(theirs.mean()), after=mean, margin=margin))
    return tuple(scores)
