"""Marian's and M2M100's SentencePiece models, through vocabularies that do not agree with them."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.parity.compare import assert_same_continuation, assert_same_logits, exported
from tests.parity.conftest import randomise
from tests.parity.tokenizers_for_tests import TEXTS
from tfm.core.checkpoint import Checkpoint, load_checkpoint
from tfm.core.convert.huggingface_in import import_folder
from tfm.core.introspect import score
from tfm.core.tokenizer import StreamingDetokenizer

sentencepiece = pytest.importorskip("sentencepiece", reason="SentencePiece is a test extra")
DATA = Path(__file__).parents[3] / "shared" / "data" / "multi30k"
CORNERS = [
    *TEXTS, "a", "  a  b ", "\u2581x y", "</s> <unk> <pad> >>deu<< __en__", "x</s>y", "e\u0301te\u0301",
    "\ufb01ne \u2163 \u00bd \u2460", "A\u200bB", "wide\u3000space", "\uff26\uff35\uff2c\uff2c",
    "\u00df \u1e9e \u0130 \u0131", "aaaa ----- ......", "don\u2019t \u201cquote\u201d \u2014 dash\u2026",
    "\ue000x\ue000\ue001", "KÜ QXQ Ж",
]  # fmt: skip
SHAPE = {
    "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
    "max_position_embeddings": 128,
}  # fmt: skip


def lines(language: str, n: int) -> list[str]:
    path = DATA / f"train.{language}.gz"
    if not path.is_file():
        pytest.skip("Multi30k is not in this tree")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [line.rstrip("\n") for line, _ in zip(file, range(n), strict=False)]


def noise(n: int) -> list[str]:
    draw = random.Random(0)
    letters = "abcdeXYZ ,.-'äöüß12“”日本é  "
    return ["".join(draw.choice(letters) for _ in range(draw.randint(0, 40))) for _ in range(n)]


def train(prefix: Path, texts: list[str], **options: Any) -> list[str]:
    """A model beside ``prefix``; its pieces."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_prefix=str(prefix), vocab_size=600, num_threads=1,
        minloglevel=2, **options,
    )  # fmt: skip
    processor = sentencepiece.SentencePieceProcessor(str(prefix.with_suffix(".model")))
    return [processor.id_to_piece(i) for i in range(len(processor))]


def left_out(piece: str) -> bool:
    """Some pieces of the models have no place in the vocabulary."""
    return zlib.crc32(piece.encode()) % 40 == 3


@pytest.fixture(scope="module")
def marian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("marian")
    vocabulary = {"</s>": 0, "<unk>": 1}
    ends = {"bos_id": -1, "pad_id": -1, "eos_id": 0, "unk_id": 1}
    for side, language in (("source", "en"), ("target", "de")):
        pieces = train(folder / side, lines(language, 1500), character_coverage=0.999, **ends)
        (folder / f"{side}.model").rename(folder / f"{side}.spm")
        (folder / f"{side}.vocab").unlink()
        for piece in pieces:
            if not left_out(piece):
                vocabulary.setdefault(piece, len(vocabulary))
    vocabulary["<pad>"] = pad = len(vocabulary)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"source_lang": "en", "target_lang": "de", "tokenizer_class": "MarianTokenizer",
                    "unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<pad>"})
    )  # fmt: skip
    config = transformers.MarianConfig(
        vocab_size=len(vocabulary), pad_token_id=pad, eos_token_id=0, decoder_start_token_id=pad,
        forced_eos_token_id=None, **SHAPE,
    )  # fmt: skip
    model = transformers.MarianMTModel(config)
    randomise(model)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def ours(marian: Path) -> Checkpoint:
    return load_checkpoint(import_folder(marian, marian.parent / "marian-ours").path)


def test_marian_cuts_both_sides_as_the_reference_does(marian: Path, ours: Checkpoint) -> None:
    reference = transformers.MarianTokenizer.from_pretrained(marian)
    for text in [*lines("en", 300), *lines("de", 300), *CORNERS, *noise(500)]:
        source = reference(text, split_special_tokens=True)["input_ids"]
        target = reference(text_target=text, split_special_tokens=True)["input_ids"]
        assert [*ours.tokenizer.encode(text), 0] == source, text
        assert [*ours.target_tokenizer.encode(text), 0] == target, text
        decoded = reference.decode(target, skip_special_tokens=True)
        assert ours.tokenizer.decode(target).strip() == decoded
        assert ours.target_tokenizer.decode(target).strip() == decoded


def test_a_stream_of_pieces_is_the_text(ours: Checkpoint) -> None:
    for text in [*lines("de", 50), *CORNERS]:
        ids = ours.target_tokenizer.encode(text)
        stream = StreamingDetokenizer(ours.tokenizer)
        assert "".join([*(stream.push(token) for token in ids), stream.flush()]) == ours.tokenizer.decode(ids)
    hidden = [ours.tokenizer.piece(token) for token in range(ours.config.vocab_size)]
    assert not [piece for piece in hidden if "\ue000" in piece]


def test_a_marian_folder_goes_out_as_it_came_in(marian: Path, ours: Checkpoint) -> None:
    reference = transformers.MarianMTModel.from_pretrained(marian).eval()
    assert_same_logits(ours, reference)
    assert_same_continuation(ours, reference)
    back, tokenizer = exported(ours, "MarianMTModel")
    assert isinstance(tokenizer, transformers.MarianTokenizer)
    assert_same_logits(ours, back)
    for name in ("source.spm", "target.spm", "vocab.json"):
        assert (ours.path.with_name("exported") / name).read_bytes() == (marian / name).read_bytes()


def test_translations_are_scored_by_the_target_model(ours: Checkpoint) -> None:
    text = "Zwei Hunde spielen im Schnee."
    tokens = [token.token for token in score(ours, text, "Two dogs play in the snow.").tokens]
    assert tokens == [*ours.target_tokenizer.encode(text), 0]
    assert tokens != [*ours.tokenizer.encode(text), 0]


def test_m2m100_cuts_as_the_reference_does(tmp_path: Path) -> None:
    texts = lines("en", 800) + lines("de", 800)
    pieces = train(tmp_path / "m", texts, model_type="bpe", character_coverage=0.999)
    (tmp_path / "m.model").rename(tmp_path / "sentencepiece.bpe.model")
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    for piece in pieces:
        if not left_out(piece):
            vocabulary.setdefault(piece, len(vocabulary))
    vocabulary["日"] = len(vocabulary)  # a letter that the model does not know
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    reference = transformers.M2M100Tokenizer(
        str(tmp_path / "vocab.json"), str(tmp_path / "sentencepiece.bpe.model"), src_lang="en", tgt_lang="de"
    )
    folder = tmp_path / "published"
    reference.save_pretrained(folder)
    size = len(vocabulary) + 100 + 8  # languages, and rows that stand for nothing
    config = transformers.M2M100Config(vocab_size=size, pad_token_id=1, eos_token_id=2, **SHAPE)
    model = transformers.M2M100ForConditionalGeneration(config)
    randomise(model)
    model.save_pretrained(folder)
    ours = load_checkpoint(import_folder(folder, tmp_path / "ours", target_language="fr").path)
    german, french = reference.convert_tokens_to_ids(["__en__", "__fr__"])
    assert (ours.config.source_prefix, ours.config.target_prefix) == ((german,), (french,))
    for text in [*lines("en", 200), *lines("de", 200), *CORNERS, *noise(300)]:
        ids = ours.tokenizer.encode(text)
        assert max(ids, default=0) < size
        assert [german, *ids, 2] == reference(text, split_special_tokens=True)["input_ids"], text
        assert ours.tokenizer.decode(ids).strip() == reference.decode(ids, skip_special_tokens=True).strip()
    with torch.inference_mode():
        reference_model = transformers.M2M100ForConditionalGeneration.from_pretrained(folder).eval()
    assert_same_logits(ours, reference_model)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "holds no pieces"),
        (b"\x0a\xff", "is no SentencePiece model: index out of range"),
        (b"\x0a\x7fabc", "is no SentencePiece model: cut short at byte 2"),
        (b"\xff" * 20, "is no SentencePiece model: a number of more than 64 bits"),
        (b"hello world", "is no SentencePiece model"),
    ],
)
def test_damaged_models(marian: Path, tmp_path: Path, data: bytes, words: str) -> None:
    from tfm.core.convert.huggingface_in import read_tokenizer

    for name in ("source.spm", "target.spm", "vocab.json"):
        (tmp_path / name).write_bytes((marian / name).read_bytes())
    (tmp_path / "target.spm").write_bytes(data)
    with pytest.raises(ValueError, match=r"target\.spm") as caught:
        read_tokenizer(tmp_path)
    assert words in str(caught.value)
