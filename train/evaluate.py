"""How good a translation or a model is: BLEU, chrF, CER, WER; loss, perplexity, token accuracy.

The scores of texts need no torch; the scores of a model import it when they are called.
"""

from __future__ import annotations

import math
import random
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tfm.core.checkpoint import Checkpoint

_MASKED_SHARE = 0.15  # of a text's tokens, Devlin et al. 2019


# --------------------------------------------------------------------------- scores of translations
class TranslationScores(msgspec.Struct, frozen=True, kw_only=True):
    """Corpus scores. BLEU and chrF in points of 100; CER and WER as edits per reference symbol."""

    bleu: float  # sacreBLEU, cased, on plain text: the one to compare with other people's
    bleu_signature: str
    chrf: float
    chrf_signature: str
    tokenized_bleu: float  # lower-cased, punctuation normalised, Moses-tokenised, as Multi30k papers report
    tokenized_bleu_signature: str
    cer: float
    wer: float
    n_sentences: int


def translation_scores(
    hypotheses: Sequence[str],
    references: Sequence[str],
    target_language: str,
    tokenized_references: Sequence[str] | None = None,
) -> TranslationScores:
    """Score detokenised, cased hypotheses against one reference each.

    Args:
        target_language: two letters, for the Moses rules ("" is treated as English).
        tokenized_references: references for the tokenised BLEU, prepared elsewhere in the way of
            ``moses_lines``; where absent they are made from ``references``.

    Raises:
        ValueError: the lists differ in length, or there is nothing to score.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    _check_counts(hypotheses, references)
    if tokenized_references is None:
        tokenized_references = moses_lines(references, target_language)
    elif len(tokenized_references) != len(references):
        raise ValueError(
            f"{len(tokenized_references):,} tokenised references do not fit {len(references):,} references"
        )
    bleu, chrf = BLEU(tokenize="13a"), CHRF()
    steps = f"moses:lc.norm.tok.{target_language or 'en'}"
    tokenized = BLEU(tokenize="none", force=True)  # force: do not warn that the text is tokenised
    return TranslationScores(
        bleu=bleu.corpus_score(hypotheses, [references]).score,
        bleu_signature=f"BLEU|{bleu.get_signature()}",
        chrf=chrf.corpus_score(hypotheses, [references]).score,
        chrf_signature=f"chrF2|{chrf.get_signature()}",
        tokenized_bleu=tokenized.corpus_score(
            moses_lines(hypotheses, target_language), [tokenized_references]
        ).score,
        tokenized_bleu_signature=f"BLEU|{steps}|{tokenized.get_signature()}",
        cer=character_error_rate(hypotheses, references),
        wer=word_error_rate(hypotheses, references),
        n_sentences=len(references),
    )


def moses_lines(lines: Sequence[str], language: str) -> list[str]:
    """Lower-case, normalise punctuation, tokenise: what made Multi30k's ``lc.norm.tok`` files.

    The Perl scripts of Moses saw each line with its newline and turn a typographic apostrophe that
    stands by no ASCII letter into a double quote; both matter for equality with their output.
    """
    from sacremoses import MosesPunctNormalizer, MosesTokenizer

    normalizer = MosesPunctNormalizer(lang=language or "en", perl_parity=True)
    tokenizer = MosesTokenizer(lang=language or "en")
    return [
        str(tokenizer.tokenize(normalizer.normalize(line.lower() + "\n"), return_str=True)) for line in lines
    ]


def character_error_rate(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Edits between all hypotheses and references, in characters, per reference character."""
    return _error_rate(list(hypotheses), list(references), "characters")


def word_error_rate(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Edits in words (split at white space) per reference word."""
    return _error_rate([h.split() for h in hypotheses], [r.split() for r in references], "words")


def _error_rate(
    hypotheses: Sequence[Sequence[Hashable]], references: Sequence[Sequence[Hashable]], unit: str
) -> float:
    _check_counts(hypotheses, references)
    total = sum(map(len, references))
    if total == 0:
        raise ValueError(f"the references hold no {unit}, so no error rate can be given")
    return sum(map(edit_distance, hypotheses, references)) / total


def edit_distance(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """Levenshtein distance, one column of the table at a time in the bits of an integer.

    Bit i of ``up``/``down`` says that the table grows/shrinks by one from row i to row i + 1 (Myers
    1999, in the form of Hyyrö 2003): len(b) operations on integers of len(a) bits.
    """
    if not a:
        return len(b)
    full, last = (1 << len(a)) - 1, 1 << (len(a) - 1)
    where: dict[Hashable, int] = {}
    for i, symbol in enumerate(a):
        where[symbol] = where.get(symbol, 0) | 1 << i
    up, down, distance = full, 0, len(a)
    for symbol in b:
        equal = where.get(symbol, 0)
        diagonal = (((equal & up) + up) ^ up) | equal | down
        right_up = down | (full & ~(diagonal | up))
        right_down = up & diagonal
        distance += bool(right_up & last) - bool(right_down & last)
        right_up, right_down = (right_up << 1 | 1) & full, (right_down << 1) & full
        up = right_down | (full & ~(diagonal | right_up))
        down = right_up & diagonal
    return distance


def _check_counts(hypotheses: Sequence[object], references: Sequence[object]) -> None:
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses):,} hypotheses do not fit {len(references):,} references")
    if not references:
        raise ValueError("there are no sentences to score")


# --------------------------------------------------------------------------- scores of a model
class TokenScores(msgspec.Struct, frozen=True, kw_only=True):
    """Teacher forcing: each token predicted from the true ones around it."""

    loss: float  # nats a token
    perplexity: float
    accuracy: float  # share of tokens whose prediction is the token
    n_tokens: int
    n_left_out: int = 0  # examples longer than the model has positions for


class _Example(msgspec.Struct, frozen=True):
    """Ids for the model and the id wanted at each position of the last of them, -1 where none is."""

    source: list[int]  # empty but for an encoder-decoder
    inputs: list[int]
    wanted: list[int]


def perplexity_and_accuracy(
    checkpoint: Checkpoint,
    examples: Sequence[tuple[str, str]] | Sequence[str],
    *,
    batch_tokens: int = 2048,
) -> TokenScores:
    """Score a model on pairs (encoder-decoder) or texts (the other families), in batches by length.

    A text longer than the positions of a decoder-only model is read in windows, each token predicted
    once. An encoder-only model predicts 15 % of each text's tokens, masked; the choice is always the
    same. ``batch_tokens`` bounds memory, not the result.

    Raises:
        ValueError: the examples are not of the kind that the model reads, or hold no token to predict.
    """
    import torch

    pairs = [example for example in examples if not isinstance(example, str)]
    texts = [example for example in examples if isinstance(example, str)]
    family = checkpoint.config.family
    if family == "encoder-decoder" and texts:
        raise ValueError("a translation model is scored on pairs of source and target, not on plain text")
    if family != "encoder-decoder" and pairs:
        raise ValueError(f"a {family} model is scored on plain text, not on pairs of source and target")
    prepared, n_left_out = _prepare(checkpoint, pairs, texts)
    if not any(wanted >= 0 for example in prepared for wanted in example.wanted):
        raise ValueError("there is no token to predict in what was given to score")
    nll = hits = n_tokens = 0.0
    was_training = checkpoint.model.training
    checkpoint.model.eval()
    try:
        with torch.inference_mode():
            for batch in _by_length(prepared, batch_tokens):
                logits_NV, wanted_N = _predict(checkpoint, batch)
                nll += torch.nn.functional.cross_entropy(logits_NV, wanted_N, reduction="sum").item()
                hits += (logits_NV.argmax(-1) == wanted_N).sum().item()
                n_tokens += len(wanted_N)
    finally:
        checkpoint.model.train(was_training)
    loss = nll / n_tokens
    return TokenScores(
        loss=loss,
        perplexity=math.exp(min(loss, 700.0)),  # exp of more is no float
        accuracy=hits / n_tokens,
        n_tokens=int(n_tokens),
        n_left_out=n_left_out,
    )


def _prepare(
    checkpoint: Checkpoint, pairs: list[tuple[str, str]], texts: list[str]
) -> tuple[list[_Example], int]:
    """Token ids of everything that fits the model, and how many examples did not."""
    config, tokenizer = checkpoint.config, checkpoint.tokenizer
    start = [] if config.start_id is None else [config.start_id]
    end = [] if config.eos_id is None else [config.eos_id]
    found: list[_Example] = []
    n_left_out = 0
    sources = tokenizer.encode_batch([source for source, _ in pairs])
    targets = tokenizer.encode_batch([target for _, target in pairs])
    for source_ids, target_ids in zip(sources, targets, strict=True):
        ids = start + target_ids + end
        if max(len(source_ids) + len(end), len(ids) - 1) > config.max_positions:
            n_left_out += 1
        else:
            found.append(_Example(source_ids + end, ids[:-1], ids[1:]))
    choose = random.Random(0)
    for text_ids in tokenizer.encode_batch(texts):
        if config.family == "decoder-only":
            ids = start + text_ids + end
            for first in range(0, len(ids) - 1, config.max_positions):
                window = ids[first : first + config.max_positions + 1]
                found.append(_Example([], window[:-1], window[1:]))
        elif len(text_ids) + len(start) + len(end) > config.max_positions:
            n_left_out += 1
        elif text_ids:
            found.append(_masked(text_ids, start, end, config.mask_id, choose))
    return found, n_left_out


def _masked(
    ids: list[int], start: list[int], end: list[int], mask_id: int | None, choose: random.Random
) -> _Example:
    if mask_id is None:
        raise ValueError("this model has no mask token, so it cannot be scored on masked text")
    hidden = set(choose.sample(range(len(ids)), max(1, round(_MASKED_SHARE * len(ids)))))
    inputs = [mask_id if i in hidden else token for i, token in enumerate(ids)]
    wanted = [token if i in hidden else -1 for i, token in enumerate(ids)]
    return _Example([], start + inputs + end, [-1] * len(start) + wanted + [-1] * len(end))


def _by_length(examples: list[_Example], batch_tokens: int) -> Iterator[list[_Example]]:
    """Batches of similar length whose padded inputs and sources each stay within ``batch_tokens``."""
    batch: list[_Example] = []
    widest = 0
    for example in sorted(examples, key=lambda e: (len(e.inputs), len(e.source))):
        width = max(len(example.inputs), len(example.source))
        if batch and max(widest, width) * (len(batch) + 1) > batch_tokens:
            yield batch
            batch, widest = [], 0
        batch.append(example)
        widest = max(widest, width)
    if batch:
        yield batch


def _predict(checkpoint: Checkpoint, batch: list[_Example]) -> tuple[Tensor, Tensor]:
    """Logits (N, V) in fp32 and wanted ids (N,) of the positions of a batch that want something."""
    from tfm.core.model import DecoderOnly, EncoderDecoder

    model, pad = checkpoint.model, checkpoint.config.pad_id
    inputs_BT, real_BT = _pad([example.inputs for example in batch], pad, model)
    wanted_BT, _ = _pad([example.wanted for example in batch], -1, model)
    if isinstance(model, EncoderDecoder):
        source_BS, source_mask_BS = _pad([example.source for example in batch], pad, model)
        memory_BSD = model.encode(source_BS, source_mask_BS)
        hidden_BTD = model.decode(inputs_BT, memory_BSD, source_mask_BS)
    elif isinstance(model, DecoderOnly):
        hidden_BTD = model.decode(inputs_BT)
    else:
        hidden_BTD = model.encode(inputs_BT, real_BT)
    chosen_BT = wanted_BT >= 0
    return model.project(hidden_BTD[chosen_BT]).float(), wanted_BT[chosen_BT]


def _pad(rows: list[list[int]], filler: int, model: torch.nn.Module) -> tuple[Tensor, Tensor]:
    """Rows of ids as one (B, T) tensor padded on the right, and which of its places are real."""
    import torch

    device = next(model.parameters()).device
    width = max(map(len, rows))
    padded = torch.tensor([row + [filler] * (width - len(row)) for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return padded, torch.arange(width, device=device)[None] < lengths[:, None]
