"""GGUF: every format in, the same numbers, words and tokens as transformers has of them out."""

from __future__ import annotations

import io
import json
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers

from tests.conftest import SENTENCES
from tests.parity.compare import assert_same_continuation, assert_same_logits
from tests.parity.conftest import randomise
from tests.parity.tokenizers_for_tests import BYTES, TEXTS, chat_json, gpt2_json

gguf = pytest.importorskip("gguf", reason="the gguf package is an extra")

from gguf import GGMLQuantizationType, GGUFWriter  # noqa: E402
from gguf.quants import dequantize as reference_dequantize  # noqa: E402

from tests.parity.gguf_files import BYTE, CONTROL, NORMAL, UNKNOWN, byte_level, write_model  # noqa: E402
from tfm.core.chat import TEMPLATE_FILE, chat_prompt_ids  # noqa: E402
from tfm.core.checkpoint import Checkpoint, load_checkpoint, verify_checkpoint  # noqa: E402
from tfm.core.convert import gguf_quants  # noqa: E402
from tfm.core.convert.gguf import import_gguf  # noqa: E402
from tfm.core.convert.gguf_file import inspect, read_header  # noqa: E402

transformers = pytest.importorskip("transformers")

SMALL = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128,
}  # fmt: skip
WIDE = {**SMALL, "hidden_size": 256, "intermediate_size": 256}  # K formats have rows of 256
PLAIN = ("F32", "F16", "BF16")
BLOCKS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
K_BLOCKS = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")


def tiny(family: str = "Llama", **fields: Any) -> Any:
    """A random model of transformers whose vocabulary is that of gpt2_json."""
    size = tokenizers.Tokenizer.from_str(gpt2_json()).get_vocab_size()
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}  # <|endoftext|>
    config = getattr(transformers, f"{family}Config")(vocab_size=size, **{**ids, **SMALL, **fields})
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    randomise(model)
    return model.eval()


def imported(path: Path) -> Checkpoint:
    folder = import_gguf(path, path.with_suffix(""))
    verify_checkpoint(folder)
    return load_checkpoint(folder)


def assert_parity(path: Path, reference: Any) -> Checkpoint:
    ours = imported(path)
    assert_same_logits(ours, reference)
    assert_same_continuation(ours, reference)
    return ours


# --------------------------------------------------------------------------- formats
@pytest.mark.parametrize("kind", [*PLAIN, *BLOCKS, *K_BLOCKS])
def test_every_format(tmp_path: Path, kind: str) -> None:
    model = tiny(**(WIDE if kind in K_BLOCKS else SMALL))
    path = tmp_path / "model.gguf"
    write_model(path, model, "llama", kind, tokenizer=byte_level(gpt2_json(), "gpt-2"))
    ours = assert_parity(path, model)
    types = ours.training["origin"]["types"]
    assert types == ({"F32": 21} if kind == "F32" else {"F32": 5, kind: 16})
    stored = (path.with_suffix("") / "model.safetensors").stat().st_size
    wanted = sum(parameter.numel() for parameter in model.parameters()) * (2 if kind in PLAIN[1:] else 4)
    assert wanted <= stored < 1.2 * wanted + 10_000


@pytest.mark.parametrize("kind", BLOCKS)
def test_blocks_are_unpacked_to_the_last_bit(kind: str) -> None:
    """Any bytes at all: every scale and every number, infinite and not-a-number scales too."""
    quantization = GGMLQuantizationType[kind]
    n_bytes = gguf.GGML_QUANT_SIZES[quantization][1]
    data = np.random.default_rng(0).integers(0, 256, (3000, n_bytes), dtype=np.uint8)
    with np.errstate(all="ignore"):
        theirs = reference_dequantize(data, quantization).reshape(-1)
    assert np.array_equal(gguf_quants.dequantize(data.reshape(-1), kind), theirs, equal_nan=True)


def test_a_stored_type_can_be_chosen(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    write_model(path, tiny(), "llama", "Q8_0", tokenizer=byte_level(gpt2_json(), "gpt-2"))
    import_gguf(path, tmp_path / "full")
    import_gguf(path, tmp_path / "half", dtype=torch.bfloat16)
    full, half = load_checkpoint(tmp_path / "full"), load_checkpoint(tmp_path / "half")
    for name, parameter in full.model.named_parameters():
        assert torch.equal(half.model.get_parameter(name), parameter.to(torch.bfloat16).float())


# --------------------------------------------------------------------------- architectures
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
}  # fmt: skip


@pytest.mark.parametrize(
    ("family", "architecture", "fields"),
    [
        ("Llama", "llama", {"tie_word_embeddings": True, "rms_norm_eps": 1e-5}),
        ("Llama", "llama", {"num_key_value_heads": 4, "attention_bias": True, "mlp_bias": True}),
        ("Llama", "llama", {"num_key_value_heads": 1, "head_dim": 16}),
        ("Llama", "llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
        ("Mistral", "llama", {"sliding_window": None}),
        ("Qwen2", "qwen2", {"tie_word_embeddings": True}),
        ("Qwen3", "qwen3", {"head_dim": 16}),
    ],
    ids=["tied", "biases", "multi-query-wide-heads", "theta", "mistral", "qwen2", "qwen3"],
)
def test_every_architecture(tmp_path: Path, family: str, architecture: str, fields: dict[str, Any]) -> None:
    model = tiny(family, **fields)
    path = tmp_path / "model.gguf"
    write_model(path, model, architecture, "F32", tokenizer=byte_level(gpt2_json(), "gpt-2"))
    ours = assert_parity(path, model)
    assert ours.config.tie_output is fields.get("tie_word_embeddings", False)
    assert ours.config.norm_eps == model.config.rms_norm_eps


def test_linear_scaling(tmp_path: Path) -> None:
    model = tiny(rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0})
    path = tmp_path / "model.gguf"

    def scale(writer: GGUFWriter) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(4.0)

    write_model(path, model, "llama", edit=scale, tokenizer=byte_level(gpt2_json(), "gpt-2"))
    assert_parity(path, model)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama3_scaling_is_recognised_by_its_quotients(tmp_path: Path, factor: float) -> None:
    """Head size 64: the shortest and the longest waves and some in between."""
    wide = {"hidden_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1}
    model = tiny(rope_parameters={**LLAMA3, "factor": factor}, **wide)
    plain = 1.0 / 500_000.0 ** (np.arange(0, 64, 2) / 64)
    quotients = (plain / model.model.rotary_emb.inv_freq.numpy()).astype(np.float32)
    assert quotients.min() == pytest.approx(1) and quotients.max() == pytest.approx(factor)
    path = tmp_path / "model.gguf"
    facts = byte_level(gpt2_json(), "gpt-2")
    write_model(path, model, "llama", tokenizer=facts, more={"rope_freqs.weight": quotients})
    ours = assert_parity(path, model)
    assert ours.config.rope_scaling is not None and ours.config.rope_scaling.factor == factor
    other = tmp_path / "other.gguf"
    write_model(other, model, "llama", tokenizer=facts, more={"rope_freqs.weight": quotients[::-1].copy()})
    with pytest.raises(ValueError, match=r"other\.gguf stretches its positions .* not Llama 3's"):
        import_gguf(other, tmp_path / "never")


# --------------------------------------------------------------------------- tokenizers
HARD = [
    *TEXTS,
    "It's I'LL we've  'd 's don'T",
    "x1y22z333 4444 55555 １２３ ½ ٣٤",
    "a\n\n\n b \r\n\r\n  c\t\t d   ",
    "   ",
    "\n",
    "def f(x):\n    return x**2  # ok!!!\n",
    "e\u0301 \u212b ﬁ 한국어 ไทย नमस्ते",
    "👩\u200d👩\u200d👧 <|im_start|> </s> <|endoftext|>",
]
LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def pre_tokenizer(pre: str) -> Any:
    """The pipelines that the models of these names are published with."""
    words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if pre == "gpt-2":
        return words
    if pre == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    digits = r"|\p{N}{1,3}" if pre == "llama-bpe" else r"|\p{N}"
    split = pre_tokenizers.Split(Regex(LETTERS + digits + REST), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "qwen2"])
def test_byte_level_tokenizers(tmp_path: Path, pre: str) -> None:
    published = tokenizers.Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    if pre == "qwen2":
        published.normalizer = normalizers.NFC()
    published.pre_tokenizer, published.decoder = pre_tokenizer(pre), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<|endoftext|>"], initial_alphabet=BYTES, show_progress=False
    )
    published.train_from_iterator([*SENTENCES, *HARD] * 2, trainer)
    published.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    published.add_tokens([AddedToken("<think>", normalized=False)])
    config = transformers.LlamaConfig(vocab_size=published.get_vocab_size(), **SMALL)
    path = tmp_path / "model.gguf"
    facts = byte_level(published.to_str(), pre)
    write_model(path, transformers.LlamaForCausalLM(config), "llama", tokenizer=facts)
    ours = imported(path)
    texts = [*HARD, "a <think> b", "<think><|im_end|>"]
    for text in texts:
        assert ours.tokenizer.encode(text, specials=True) == published.encode(text).ids, text
    published.encode_special_tokens = True
    for text in texts:
        ids = ours.tokenizer.encode(text)
        assert ids == published.encode(text).ids, text
        assert ours.tokenizer.decode(ids, skip_special=False) == published.decode(
            ids, skip_special_tokens=False
        )
    assert set(ours.tokenizer.specials) == {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}


def test_sentencepiece_tokenizer(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is a test extra")
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 4), model_writer=trained, model_type="bpe", vocab_size=420,
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        minloglevel=2,
    )  # fmt: skip
    published = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    size = published.get_piece_size()

    def kind(index: int) -> int:
        if published.is_unknown(index):
            return UNKNOWN
        if published.is_control(index):
            return CONTROL
        return BYTE if published.is_byte(index) else NORMAL

    facts = {
        "tokenizer_model": "llama",
        "token_list": [published.id_to_piece(index) for index in range(size)],
        "token_scores": [published.get_score(index) for index in range(size)],
        "token_types": [kind(index) for index in range(size)],
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    path = tmp_path / "model.gguf"
    config = transformers.LlamaConfig(vocab_size=size, **SMALL)
    write_model(path, transformers.LlamaForCausalLM(config), "llama", tokenizer=facts)
    ours = imported(path)
    assert (ours.config.bos_id, ours.config.eos_id) == (1, 2)
    for text in filter(None, HARD):
        ids = ours.tokenizer.encode(text)
        assert ids == published.encode(text), text
        assert ours.tokenizer.decode(ids) == published.decode(ids)
    assert ours.tokenizer.encode("<s>a</s>", specials=True)[0] == 1


def chat_file(path: Path, **more: Any) -> Path:
    facts = {
        **byte_level(chat_json(), "gpt-2"),
        "bos_token_id": 381,
        "eos_token_id": 382,
        "pad_token_id": 382,
        "add_bos_token": False,
        "chat_template": "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}",
    }
    backend = tokenizers.Tokenizer.from_str(chat_json())
    facts["bos_token_id"] = backend.token_to_id("<|im_start|>")
    facts["eos_token_id"] = facts["pad_token_id"] = backend.token_to_id("<|im_end|>")
    config = transformers.LlamaConfig(vocab_size=backend.get_vocab_size(), **SMALL)
    model = transformers.LlamaForCausalLM(config)
    write_model(path, model, "llama", tokenizer={**facts, **more})
    return path


def test_special_ids_and_chat_template(tmp_path: Path) -> None:
    ours = imported(chat_file(tmp_path / "model.gguf"))
    special = ours.tokenizer.specials
    assert ours.config.bos_id is None, "nothing is put in front of a text"
    assert ours.config.eos_id == ours.config.pad_id == special["<|im_end|>"]
    assert ours.config.eos_ids == (special["<|endoftext|>"],), "a text ends there too, whatever the file says"
    assert (ours.path / TEMPLATE_FILE).is_file()
    prompt = chat_prompt_ids(ours, [{"role": "user", "content": "A man"}], 10)
    assert prompt.text == "<|im_start|>A man<|im_end|>"
    assert prompt.ids[0] == special["<|im_start|>"] and prompt.ids[-1] == special["<|im_end|>"]
    begun = imported(chat_file(tmp_path / "begun.gguf", add_bos_token=True))
    assert begun.config.bos_id == special["<|im_start|>"]


def test_the_card_and_the_record_say_where_it_came_from(tmp_path: Path) -> None:
    def describe(writer: GGUFWriter) -> None:
        writer.add_name("Tiny \x1b[31m llama\n# not a heading")
        writer.add_license("mit")

    path = tmp_path / "model.gguf"
    write_model(path, tiny(), "llama", edit=describe, tokenizer=byte_level(gpt2_json(), "gpt-2"))
    folder = import_gguf(path, tmp_path / "out", origin={"package": "p 1"})
    lines = (folder / "card.md").read_text().splitlines()
    assert lines[0].startswith("# Tiny") and sum(line.startswith("#") for line in lines) == 1
    assert "- License: mit." in lines
    origin = json.loads((folder / "training.json").read_text())["origin"]
    assert (origin["source"], origin["package"], origin["types"]) == ("model.gguf", "p 1", {"F32": 21})


# --------------------------------------------------------------------------- what goes wrong
@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_file(tmp_path_factory.mktemp("gguf") / "whole.gguf")


def refused(path: Path, sentence: str) -> None:
    """One sentence that begins with the file's path; and no folder."""
    destination = path.parent / "never"
    with pytest.raises(ValueError, match=sentence) as caught:
        import_gguf(path, destination)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    assert not destination.exists() and not list(path.parent.glob(".tmp-*"))


def header(n_tensors: int, n_keys: int, rest: bytes = b"", version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_keys) + rest


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is no GGUF file"),
        (b"GGUF", "cut short or damaged: the header"),
        (b"PK\x03\x04" + bytes(60), "is no GGUF file"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "is big-endian"),
        (header(0, 0, version=1), "of GGUF version 1"),
        (header(0, 2**62, bytes(19)), "metadata key number 2 of"),
        (header(2**62, 0, bytes(19)), "says that tensor '' has 0 axes"),
        (header(0, 1, struct.pack("<Q", 2**60) + bytes(11)), "metadata key number 1 of 1 goes past"),
        (header(0, 1, struct.pack("<QcIIQ", 1, b"k", 9, 8, 2**61)), "metadata key 'k' goes past"),
        (header(0, 1, struct.pack("<QcIIQ", 1, b"k", 9, 0, 2**61)), "metadata key 'k' goes past"),
        (header(0, 1, struct.pack("<QcIIQ", 1, b"k", 9, 9, 2**61)), "elements have type number 9"),
        (header(0, 1, struct.pack("<QcI", 1, b"k", 77)), "a type .number 77. that does not exist"),
        (header(1, 0, struct.pack("<QcIQIQ", 1, b"t", 1, 4, 99, 0)), "tensor 't' in a format .number 99."),
        (header(1, 0, struct.pack("<QcIQIQ", 1, b"t", 1, 2**63, 0, 0)), "cut short: tensor 't' ends at byte"),
        (header(1, 0, struct.pack("<QcIQIQ", 1, b"t", 1, 31, 2, 0)), "tensor 't' of type Q4_0 has the shape"),
        (header(0, 0), "no tokenizer .metadata key tokenizer.ggml.tokens."),
    ],
)  # fmt: skip
def test_damaged_headers(tmp_path: Path, data: bytes, sentence: str) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    begin = time.monotonic()
    refused(path, sentence)
    assert time.monotonic() - begin < 20


def test_43_bytes_that_hang_other_readers(tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    for rest in (bytes(19), struct.pack("<QIIH", 2**40, 9, 9, 0) + b"\xff", b"\xff" * 19):
        for counts in ((0, 2**40), (2**40, 0), (2**64 - 1, 2**64 - 1)):
            path.write_bytes(header(*counts, rest))
            assert path.stat().st_size == 43
            with pytest.raises(ValueError, match=r"twice|past its end|axes|number"):
                read_header(str(path))


def test_a_file_cut_anywhere(tmp_path: Path, whole: Path) -> None:
    data = whole.read_bytes()
    path = tmp_path / "cut.gguf"
    for cut in (100, len(data) // 8, len(data) // 2, len(data) - 32):
        path.write_bytes(data[:cut])
        refused(path, "is cut short")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_headers_with_flipped_bytes_are_refused_or_read(
    tmp_path: Path, whole: Path, data: st.DataObject
) -> None:
    """Never anything but a ValueError, however the bytes lie. In this process, without a child's limits."""
    damaged = bytearray(whole.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(4, 12_000))] = data.draw(st.integers(0, 255))
    path = tmp_path / "flipped.gguf"
    path.write_bytes(bytes(damaged[: data.draw(st.just(len(damaged)) | st.integers(4, len(damaged)))]))
    try:
        inspect(str(path))
    except ValueError as error:
        assert str(error)


Edit = Callable[[GGUFWriter], None]


def replace_key(name: str, value: Any) -> Edit:
    def edit(writer: GGUFWriter) -> None:
        fields = writer.kv_data[0]
        fields[name] = gguf.gguf_writer.GGUFValue(value=value, type=gguf.GGUFValueType.get_type(value))

    return edit


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("general.architecture", "gemma3", "architecture 'gemma3'; only llama, qwen2, qwen3"),
        ("general.alignment", 0, "alignment of 0"),
        ("llama.block_count", 3, "has no tensor 'blk.2.attn_norm.weight'"),
        ("llama.block_count", 1, "tensor 'blk.1.attn_k.weight', which has no place"),
        ("llama.block_count", 10**9, "layers are more than"),
        ("llama.block_count", "two", "metadata key llama.block_count"),
        ("llama.embedding_length", 64, r"tensor 'token_embd.weight' in shape \[\d+, 32\]"),
        ("llama.attention.head_count", 5, "d_model .32. must be a multiple|n_heads"),
        ("llama.attention.head_count", 0, "n_heads must be at least 1"),
        ("llama.attention.key_length", 7, "even head size"),
        ("llama.rope.dimension_count", 4, "a part of each head only"),
        ("llama.rope.scaling.type", "yarn", "by 'yarn'"),
        ("llama.rope.freq_base", "hot", "'hot' stands where a number is wanted"),
        ("llama.expert_count", 8, "mixture of experts"),
        ("tokenizer.ggml.model", "bert", "tokenizer of kind 'bert'"),
        ("tokenizer.ggml.pre", "gpt-9", "as 'gpt-9' does"),
        ("tokenizer.ggml.eos_token_id", -4, "eos_token_id is -4"),
    ],
)
def test_metadata_that_does_not_fit(tmp_path: Path, name: str, value: Any, sentence: str) -> None:
    path = tmp_path / "bad.gguf"
    facts = byte_level(gpt2_json(), "gpt-2")
    write_model(path, tiny(), "llama", edit=replace_key(name, value), tokenizer=facts)
    refused(path, sentence)


ALL = byte_level(gpt2_json(), "gpt-2")["token_list"]
TOO_MANY = [*ALL, *(f"t{i}" for i in range(999 - len(ALL)))]


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"token_merges": ["a b c", "Ġ zzz"]}, "the merge 'a b c' of tokens it does not have"),
        ({"token_types": [1, 2]}, "tokens and 2 token types"),
        ({"token_list": ["a", "a"], "token_types": [1, 1]}, "the same token twice"),
        ({"token_list": TOO_MANY, "token_types": [1] * 999}, "999 tokens, but embeddings for"),
        ({"tokenizer_model": "llama"}, "tokenizer.ggml.scores is missing"),
    ],
)
def test_tokenizers_that_do_not_fit(tmp_path: Path, facts: dict[str, Any], sentence: str) -> None:
    path = tmp_path / "bad.gguf"
    write_model(path, tiny(), "llama", tokenizer={**byte_level(gpt2_json(), "gpt-2"), **facts})
    refused(path, sentence)


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    model = tiny()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = float("nan")
    path = tmp_path / "bad.gguf"
    write_model(path, model, "llama", tokenizer=byte_level(gpt2_json(), "gpt-2"))
    refused(path, r"values in tensor 'blk\.1\.ffn_up\.weight' that are not finite")


def test_a_missing_package_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.gguf"
    write_model(path, tiny(**WIDE), "llama", "Q6_K", tokenizer=byte_level(gpt2_json(), "gpt-2"))
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    refused(path, r"tensors of type Q6_K, which the gguf package reads: pip install 'tfm-tui\[gguf\]'")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file"):
        import_gguf(tmp_path / "nothing.gguf", tmp_path / "never")
    with pytest.raises(ValueError, match="there is no file"):
        import_gguf(tmp_path, tmp_path / "never")
