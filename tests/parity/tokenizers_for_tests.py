"""Small tokenizers of every kind that published checkpoints come with, trained on a few sentences."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tests.conftest import SENTENCES

TEXTS = [
    *SENTENCES[:3],
    SENTENCES[7],
    "",
    " leading and  double spaces\n\ttab",
    "Unseen wörds: Žluťoučký kůň, 日本語 and 🙂!",
    "1234 + 5.6 = ?",
]
BYTES = pre_tokenizers.ByteLevel.alphabet()


@cache
def gpt2_json() -> str:
    """Byte-level BPE without a frame."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=380, special_tokens=["<|endoftext|>"], initial_alphabet=BYTES, show_progress=False
    )
    backend.train_from_iterator(SENTENCES, trainer)
    return str(backend.to_str())


@cache
def llama_json() -> str:
    """SentencePiece-like BPE that falls back to bytes and puts <s> in front."""
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(vocab_size=420, special_tokens=specials, show_progress=False)
    backend.train_from_iterator(SENTENCES, trainer)
    pipeline = json.loads(backend.to_str())
    pipeline["added_tokens"] = pipeline["added_tokens"][:3]
    backend = tokenizers.Tokenizer.from_str(json.dumps(pipeline))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return str(backend.to_str())


@cache
def chat_json() -> str:
    """Byte-level BPE in the manner of Qwen and SmolLM2: turn marks that are special, nothing in front."""
    backend = tokenizers.Tokenizer.from_str(gpt2_json())
    backend.normalizer = normalizers.NFC()
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    return str(backend.to_str())


@cache
def bert_json() -> str:
    """WordPiece, lower-cased, [CLS] ... [SEP]."""
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=specials, show_progress=False)
    backend.train_from_iterator(SENTENCES, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return str(backend.to_str())


@cache
def translator_json() -> str:
    """Unigram with an end token behind a text, ids in the order of Marian: end first, padding last."""
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=250, special_tokens=["</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(SENTENCES, trainer)
    backend.add_special_tokens([AddedToken("<pad>", special=True)])
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    return str(backend.to_str())


def save_tokenizer(folder: Path, text: str, **options: Any) -> int:
    """Write tokenizer.json and tokenizer_config.json as the hub has them; the size of the vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(text, encoding="utf-8")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **options,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return int(tokenizers.Tokenizer.from_str(text).get_vocab_size())
