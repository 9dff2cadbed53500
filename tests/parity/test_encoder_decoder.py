"""Marian and M2M100/NLLB, and our own models in their layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
import transformers

from tests.conftest import SENTENCES, make_checkpoint
from tests.parity.compare import (
    assert_parity,
    assert_same_continuation,
    assert_same_logits,
    exported,
    imported,
)
from tests.parity.conftest import Build
from tests.parity.tokenizers_for_tests import TEXTS, save_tokenizer, translator_json
from tfm.core.checkpoint import load_checkpoint
from tfm.core.convert.huggingface_out import export_folder

SHAPE = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
    "max_position_embeddings": 128,
}  # fmt: skip
END, UNKNOWN = 0, 1
PAD = tokenizers.Tokenizer.from_str(translator_json()).get_vocab_size() - 1
LANGUAGES = ("eng_Latn", "deu_Latn", "fra_Latn")


def marian_tokenizer(folder: Path) -> int:
    return save_tokenizer(folder, translator_json(), eos_token="</s>", unk_token="<unk>", pad_token="<pad>")


@pytest.mark.parametrize(
    "fields",
    [
        {"activation_function": "swish", "scale_embedding": True},
        {"activation_function": "relu", "share_encoder_decoder_embeddings": False},
        {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
    ],
    ids=["as-published", "separate-embeddings", "untied"],
)
def test_marian(reference: Build, tmp_path: Path, fields: dict[str, Any]) -> None:
    ids = {
        "pad_token_id": PAD,
        "eos_token_id": END,
        "decoder_start_token_id": PAD,
        "forced_eos_token_id": None,
    }
    model = reference("MarianMTModel", "MarianConfig", marian_tokenizer, **SHAPE, **ids, **fields)
    model.generation_config.bad_words_ids = [[PAD]]
    model.generation_config.save_pretrained(tmp_path / "published")
    ours = assert_parity(tmp_path / "published", model, "MarianMTModel")
    assert ours.config.banned_ids == (PAD,)
    assert ours.config.start_id == PAD


def test_a_banned_token_is_never_written(reference: Build, tmp_path: Path) -> None:
    ids = {
        "pad_token_id": PAD,
        "eos_token_id": END,
        "decoder_start_token_id": PAD,
        "forced_eos_token_id": None,
    }
    model = reference("MarianMTModel", "MarianConfig", marian_tokenizer, **SHAPE, **ids)
    with torch.no_grad():
        model.final_logits_bias[0, PAD] = 100.0
    model.save_pretrained(tmp_path / "published")
    model.generation_config.bad_words_ids = [[PAD]]
    model.generation_config.save_pretrained(tmp_path / "published")
    assert_same_continuation(imported(tmp_path / "published"), model)


def nllb_tokenizer(folder: Path) -> int:
    backend = tokenizers.Tokenizer.from_str(translator_json())
    backend.add_special_tokens(list(LANGUAGES))
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="eng_Latn $A </s>", special_tokens=[("</s>", END), ("eng_Latn", PAD + 1)]
    )
    return save_tokenizer(
        folder, str(backend.to_str()), eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
        src_lang="eng_Latn",
    )  # fmt: skip


@pytest.mark.parametrize(
    "fields",
    [{"activation_function": "relu"}, {"activation_function": "gelu", "scale_embedding": False}],
    ids=["as-published", "gelu-unscaled"],
)
def test_m2m100(reference: Build, tmp_path: Path, fields: dict[str, Any]) -> None:
    ids = {
        "pad_token_id": PAD, "eos_token_id": END, "bos_token_id": UNKNOWN, "decoder_start_token_id": END,
    }  # fmt: skip
    model = reference(
        "M2M100ForConditionalGeneration", "M2M100Config", nllb_tokenizer, **SHAPE, **ids, **fields
    )
    model.generation_config.forced_bos_token_id = PAD + 2
    ours = assert_parity(
        tmp_path / "published", model, "M2M100ForConditionalGeneration",
        source_language="eng_Latn", target_language="deu_Latn",
    )  # fmt: skip
    assert ours.config.source_prefix == (PAD + 1,)
    assert ours.config.target_prefix == (PAD + 2,)
    assert ours.training["language_codes"] == {name: PAD + 1 + i for i, name in enumerate(LANGUAGES)}


def test_a_model_of_many_languages_asks_which(reference: Build, tmp_path: Path) -> None:
    ids = {"pad_token_id": PAD, "eos_token_id": END, "decoder_start_token_id": END}
    reference("M2M100ForConditionalGeneration", "M2M100Config", nllb_tokenizer, **SHAPE, **ids)
    with pytest.raises(
        ValueError, match=r"name the source and the target language .*it has eng_Latn, deu_Latn"
    ):
        imported(tmp_path / "published", source_language="eng_Latn")
    with pytest.raises(ValueError, match="no language 'xx'"):
        imported(tmp_path / "published", source_language="eng_Latn", target_language="xx")


# --------------------------------------------------------------------------- our own models
@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("M2M100ForConditionalGeneration", {"sinusoidal_layout": "halves-t2t", "position_offset": 1}),
        ("MarianMTModel", {"sinusoidal_layout": "halves", "norm_position": "post"}),
        (
            "MarianMTModel",
            {"sinusoidal_layout": "halves", "norm_position": "post", "out_bias": False,
             "share_embeddings": False, "activation": "silu"},
        ),
    ],
    ids=["pre-norm", "post-norm", "post-norm-fewer-biases"],
)  # fmt: skip
def test_our_translators_run_elsewhere(tmp_path: Path, model: str, fields: dict[str, Any]) -> None:
    ours = load_checkpoint(make_checkpoint(tmp_path / "ours", "encoder-decoder", **fields))
    there, tokenizer = exported(ours, model)
    assert_same_logits(ours, there)
    assert_same_continuation(ours, there)
    for text in TEXTS:
        ids = tokenizer(text, split_special_tokens=True)["input_ids"]
        assert ids == [*ours.tokenizer.encode(text), ours.config.eos_id]
        assert tokenizer.decode(ids, skip_special_tokens=True) == ours.tokenizer.decode(ids)
    again = imported(tmp_path / "exported")
    assert_same_logits(again, there)
    assert [again.tokenizer.encode(text) for text in TEXTS] == [ours.tokenizer.encode(text) for text in TEXTS]


def test_our_chat_models_run_elsewhere(tmp_path: Path) -> None:
    fields = {"positions": "rotary", "norm": "rmsnorm", "gated_ff": True, "activation": "silu",
              "qkv_bias": False, "out_bias": False, "ff_bias": False, "scale_embeddings": False}  # fmt: skip
    ours = load_checkpoint(make_checkpoint(tmp_path / "ours", "decoder-only", **fields))
    there, tokenizer = exported(ours, "LlamaForCausalLM")
    assert_same_logits(ours, there)
    assert_same_continuation(ours, there)
    assert [tokenizer(text)["input_ids"] for text in SENTENCES] == [
        [ours.config.bos_id, *ours.tokenizer.encode(text)] for text in SENTENCES
    ]


def test_the_bundled_translator_runs_elsewhere(tmp_path: Path) -> None:
    from tfm.core.catalog import find_checkpoint
    from tfm.core.search import translate_batch

    try:
        folder = find_checkpoint("en-de")
        ours = load_checkpoint(folder)
    except ValueError:
        pytest.skip("en-de is not in this tree")
    export_folder(folder, tmp_path / "exported")
    there = transformers.AutoModelForSeq2SeqLM.from_pretrained(
        tmp_path / "exported", dtype=torch.float32
    ).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "exported")
    batch = tokenizer(SENTENCES[:5], padding=True, return_tensors="pt")
    with torch.inference_mode():
        written = there.generate(**batch, num_beams=1, do_sample=False, max_new_tokens=60)
    expected = tokenizer.batch_decode(written, skip_special_tokens=True)
    assert translate_batch(ours, SENTENCES[:5], beam=1, max_tokens=60) == expected
