"""How near written captions come to those of people: BLEU, ROUGE-L and CIDEr.

As the COCO caption evaluation defines them (github.com/tylin/coco-caption). Its tokenizer needs Java; `caption_words`
gives the same words of a caption, but for brackets, which COCO's leaves in as words, and the last dot of "U.S.".

Shape legend: N = captions.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from gill.errors import ShapeError

Ngram = tuple[str, ...]
Ngrams = Counter[Ngram]
_MAX_ORDER = 4
_ROUGE_BETA = 1.2  # recall weighs more
_CIDER_SIGMA, _CIDER_SCALE = 6.0, 10.0

# Words with the hyphens, dots and commas inside them; clitics ('s, n't) are words of their own, as in the Penn Treebank
_WORD = re.compile(r"\w+?(?=n't\b)|n't\b|'(?:s|m|d|re|ve|ll)\b|\w+(?:[-.,/]\w+)*|[&%$#@+=]")


def caption_words(text: str) -> list[str]:
    """Words of a caption in lower case, without punctuation."""
    return _WORD.findall(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


def bleu_scores(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    """Corpus BLEU-1 to BLEU-4 in 0..1 of caption words, not smoothed (Papineni et al. 2002; counted by sacrebleu).

    Args:
        references: of each hypothesis, one or more.

    Raises:
        ShapeError: not as many hypotheses as references, or none.
    """
    return bleu_of_counts(bleu_counts(hypotheses, references))


def bleu_counts(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Tensor:
    """int64[N, 10]: what each caption brings to the BLEU of a set, which is made of the sum.

    Right n-grams of order 1 to 4, said n-grams of order 1 to 4, words, and words of the reference nearest in length.

    Raises:
        ShapeError: not as many hypotheses as references, or none.
    """
    from sacrebleu.metrics import BLEU  # slow to import, needed in validation only

    _check_pairs(hypotheses, references)
    bleu = BLEU(max_ngram_order=_MAX_ORDER, tokenize="none", smooth_method="none")
    rows = []
    for hypothesis, group in zip(hypotheses, references, strict=True):
        streams = [[" ".join(caption_words(text))] for text in group]
        found = bleu.corpus_score([" ".join(caption_words(hypothesis))], streams)
        rows.append([*found.counts, *found.totals, found.sys_len, found.ref_len])
    return torch.tensor(rows)


def bleu_of_counts(counts_NK: Tensor) -> dict[str, float]:
    """BLEU-1 to BLEU-4 in 0..1 of a set of captions, from their `bleu_counts`."""
    from sacrebleu.metrics import BLEU

    total = counts_NK.long().sum(0).tolist()
    right, said = total[:_MAX_ORDER], total[_MAX_ORDER : 2 * _MAX_ORDER]
    length, wanted = total[2 * _MAX_ORDER :]
    return {
        f"bleu{order}": BLEU.compute_bleu(right[:order], said[:order], length, wanted, max_ngram_order=order).score
        / 100
        for order in range(1, _MAX_ORDER + 1)
    }


def rouge_l(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Tensor:
    """float64[N] in 0..1: F-measure of the longest common subsequence (Lin 2004).

    Precision and recall are each the best over the references, as the COCO evaluation takes them.

    Raises:
        ShapeError: not as many hypotheses as references, or none.
    """
    _check_pairs(hypotheses, references)
    found = []
    for hypothesis, group in zip(hypotheses, references, strict=True):
        words, others = caption_words(hypothesis), [caption_words(text) for text in group]
        common = [longest_common_subsequence(words, other) for other in others]
        precision = max(common) / max(len(words), 1)
        recall = max(length / max(len(other), 1) for length, other in zip(common, others, strict=True))
        weight = _ROUGE_BETA**2
        found.append((1 + weight) * precision * recall / (recall + weight * precision) if max(common) else 0.0)
    return torch.tensor(found, dtype=torch.float64)


def longest_common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest sequence of words that both hold in this order."""
    lengths = [0] * (len(right) + 1)
    for word in left:
        before = lengths
        lengths = [0]
        for place, other in enumerate(right):
            lengths.append(before[place] + 1 if word == other else max(before[place + 1], lengths[-1]))
    return lengths[-1]


def cider(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Tensor:
    """float64[N] in 0..10: CIDEr-D (Vedantam et al., arXiv:1411.5726), the CIDEr of the COCO evaluation.

    N-grams weigh by their rarity among the references of this very corpus: scores of different sets do not compare, and
    a corpus of one caption scores 0.

    Raises:
        ShapeError: not as many hypotheses as references, or none.
    """
    _check_pairs(hypotheses, references)
    counted = [[_ngrams(text) for text in group] for group in references]
    num_captions_with = Counter(ngram for group in counted for ngram in {ngram for each in group for ngram in each})

    def weighed(counts: Ngrams) -> _Weighed:
        rarity = {ngram: math.log(len(references) / max(num_captions_with[ngram], 1)) for ngram in counts}
        return _Weighed(counts, rarity)

    found = []
    for hypothesis, group in zip(hypotheses, counted, strict=True):
        words = weighed(_ngrams(hypothesis))
        found.append(_CIDER_SCALE * sum(words.similarity(weighed(other)) for other in group) / len(group))
    return torch.tensor(found, dtype=torch.float64)


class _Weighed:
    """The n-grams of a caption as one vector an order, by count times rarity."""

    def __init__(self, counts: Ngrams, rarity: dict[Ngram, float]) -> None:
        self.orders: list[dict[Ngram, float]] = [{} for _ in range(_MAX_ORDER)]
        for ngram, count in counts.items():
            self.orders[len(ngram) - 1][ngram] = count * rarity[ngram]
        self.norms = [math.sqrt(sum(weight**2 for weight in order.values())) for order in self.orders]
        self.length = sum(count for ngram, count in counts.items() if len(ngram) == 2)  # in pairs, as COCO counts it

    def similarity(self, other: _Weighed) -> float:
        """Mean over the orders of the cosine, counts clipped to those of `other`, less for another length."""
        length_factor = math.exp(-((self.length - other.length) ** 2) / (2 * _CIDER_SIGMA**2))
        cosines = 0.0
        for mine, theirs, my_norm, their_norm in zip(self.orders, other.orders, self.norms, other.norms, strict=True):
            if my_norm and their_norm:
                common = [(min(mine[ngram], theirs[ngram]), theirs[ngram]) for ngram in mine.keys() & theirs.keys()]
                cosines += sum(clipped * weight for clipped, weight in common) / (my_norm * their_norm)
        return length_factor * cosines / _MAX_ORDER


def _ngrams(text: str) -> Ngrams:
    words = caption_words(text)
    return Counter(
        tuple(words[start : start + order])
        for order in range(1, _MAX_ORDER + 1)
        for start in range(len(words) - order + 1)
    )


def _check_pairs(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if len(hypotheses) != len(references) or not hypotheses or not all(references):
        raise ShapeError(
            f"wanted at least one reference a hypothesis: got {len(hypotheses)} hypotheses and {len(references)} groups"
            f" of references, of which {sum(not group for group in references)} are empty"
        )
