"""Damaged, foreign and hostile folders: one sentence that names the file and the tensor or key."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import make_checkpoint
from tfm.core.convert.huggingface_in import import_folder, read_tokenizer
from tfm.core.convert.huggingface_out import export_folder

LLAMA = {
    "positions": "rotary", "norm": "rmsnorm", "gated_ff": True, "activation": "silu", "qkv_bias": False,
    "out_bias": False, "ff_bias": False, "scale_embeddings": False,
}  # fmt: skip
Q_PROJ = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama as the hub has them."""
    folder = tmp_path_factory.mktemp("published")
    make_checkpoint(folder / "ours", "decoder-only", **LLAMA)
    return export_folder(folder / "ours", folder / "llama").path


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "llama"))


def change(folder: Path, file: str = "config.json", **changes: Any) -> None:
    """Set keys of a JSON file; None takes a key away."""
    raw = json.loads((folder / file).read_text()) | changes
    (folder / file).write_text(json.dumps({key: value for key, value in raw.items() if value is not None}))


def retensor(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def shard(folder: Path) -> None:
    """Split the weights into two files and an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, held in halves.items():
        save_file({name: tensors[name] for name in held}, folder / file)
    index = {"metadata": {}, "weight_map": {name: file for file, held in halves.items() for name in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def refusal(folder: Path) -> str:
    """The sentence; nothing is left behind where the checkpoint was to be."""
    destination = folder.parent / "home" / "imported"
    with pytest.raises(ValueError) as caught:
        import_folder(folder, destination)
    assert not destination.exists()
    assert not destination.parent.exists() or not list(destination.parent.iterdir())
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_the_folder_itself_is_fine(folder: Path, tmp_path: Path) -> None:
    whole = import_folder(folder, tmp_path / "whole")
    assert whole.architecture == "LlamaForCausalLM"
    shard(folder)
    sharded = import_folder(folder, tmp_path / "sharded")
    assert sharded.n_parameters == whole.n_parameters
    files = [path / "model.safetensors" for path in (whole.path, sharded.path)]
    assert files[0].read_bytes() == files[1].read_bytes()


# --------------------------------------------------------------------------- config.json
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "mamba"}, "model_type = 'mamba' is not supported, only gpt2, llama"),
        ({"model_type": None}, "model_type = None is not supported"),
        ({"architectures": ["LlamaForTokenClassification"]}, "architectures = 'LlamaForTokenClassification'"),
        ({"quantization_config": {"bits": 4}}, "quantization_config: a quantised folder"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": "32"}, "hidden_size: Expected `int`, got `str`"),
        ({"hidden_act": "mish"}, "hidden_act = 'mish' is not supported"),
        ({"num_hidden_layers": 10**9}, "1,000,000,000 layers are more than 1,000"),
        ({"num_attention_heads": 5, "head_dim": None}, "d_model (32) must be a multiple of n_heads (5)"),
        ({"num_attention_heads": 0}, "n_heads must be at least 1"),
        ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rope_scaling: type 'yarn' is not supported"),
        ({"rope_scaling": {"type": "linear"}}, "rope_scaling: Expected `float`, got `null` - at `$.factor`"),
        ({"eos_token_id": 10**9}, "eos_token_id must lie below vocab_size ("),
        ({"eos_token_id": "</s>"}, "eos_token_id must be a token id or a list of them"),
        ({"vocab_size": 10}, "but vocab_size in config.json is 10"),
        ({"intermediate_size": 65}, "has shape [64, 32], but config.json asks for [65, 32]"),
    ],
)  # fmt: skip
def test_config_is_refused(folder: Path, changes: dict[str, Any], words: str) -> None:
    if "eos_token_id" in changes:
        (folder / "generation_config.json").unlink()
    change(folder, **changes)
    sentence = refusal(folder)
    assert words in sentence
    assert str(folder) in sentence


def test_config_is_missing_or_broken(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "llama", ')
    assert "config.json: Input data was truncated" in refusal(folder)
    (folder / "config.json").write_bytes(b"\xff\xfe")
    assert "config.json cannot be read" in refusal(folder)
    (folder / "config.json").unlink()
    assert "config.json is missing" in refusal(folder)
    assert "no folder at" in refusal(folder / "nowhere")


# --------------------------------------------------------------------------- tensors
def test_a_tensor_is_missing(folder: Path) -> None:
    retensor(folder, lambda tensors: tensors.pop(Q_PROJ))
    assert f"tensor {Q_PROJ} is missing" in refusal(folder)


def test_a_tensor_has_a_wrong_shape(folder: Path) -> None:
    retensor(folder, lambda tensors: tensors.update({Q_PROJ: torch.zeros(32, 31)}))
    assert f"tensor {Q_PROJ} has shape [32, 31], but config.json asks for [32, 32]" in refusal(folder)


def test_a_tensor_has_a_wrong_type(folder: Path) -> None:
    retensor(folder, lambda tensors: tensors.update({Q_PROJ: torch.zeros(32, 32, dtype=torch.int8)}))
    assert f"tensor {Q_PROJ} is stored as I8, only F32, F16, BF16 are read" in refusal(folder)


def test_a_tensor_is_unknown(folder: Path) -> None:
    name = "model.layers.0.self_attn.q_proj.lora_A.weight"
    retensor(folder, lambda tensors: tensors.update({name: torch.zeros(4, 32)}))
    assert f"tensor {name} has no place in llama" in refusal(folder)


def test_weights_are_cut_short(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert f"{path} is cut short or no safetensors file" in refusal(folder)


def test_a_shard_is_cut_short_or_missing(folder: Path) -> None:
    shard(folder)
    path = folder / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert f"{path} is cut short or no safetensors file" in refusal(folder)
    path.unlink()
    assert f"{path} is missing, though model.safetensors.index.json names it" in refusal(folder)


def test_an_index_that_lies(folder: Path) -> None:
    shard(folder)
    index = folder / "model.safetensors.index.json"
    where = json.loads(index.read_text())["weight_map"]
    index.write_text(json.dumps({"weight_map": {**where, "ghost": "model-00001-of-00002.safetensors"}}))
    assert "tensor ghost is missing" in refusal(folder)
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    assert "'../../etc/passwd' is no name of a safetensors file" in refusal(folder)
    index.write_text("{}")
    assert "weight_map" in refusal(folder)


def test_pickled_weights_are_not_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pickled weights are not read" in refusal(folder)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_numbers_keep_their_type(folder: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    retensor(folder, lambda tensors: tensors.update({n: t.to(dtype) for n, t in tensors.items()}))
    ours = import_folder(folder, tmp_path / "ours").path
    assert {tensor.dtype for tensor in load_file(ours / "model.safetensors").values()} == {dtype}
    back = export_folder(ours, tmp_path / "back").path
    there, here = load_file(folder / "model.safetensors"), load_file(back / "model.safetensors")
    assert there.keys() == here.keys()
    assert all(torch.equal(tensor, here[name]) for name, tensor in there.items())


# --------------------------------------------------------------------------- tokenizers
def without_tokenizer(folder: Path) -> str:
    (folder / "tokenizer.json").unlink()
    return refusal(folder)


def test_a_tokenizer_is_missing(folder: Path) -> None:
    assert "tokenizer.json is missing, and so are the files it could be made of" in without_tokenizer(folder)


NOISE = base64.b64encode(b"\x04\0\0\0" + b"\xff" * 200).decode()
GROW = {"type": "Replace", "pattern": {"Regex": "."}, "content": "y" * 1000}
ENDLESS = {
    "type": "Split",
    "pattern": {"Regex": r"(.*)*(.*)*[^\s\S]"},
    "behavior": "Isolated",
    "invert": False,
}
GHOST = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "z", "type_id": 0}}], "pair": [],
         "special_tokens": {}}  # fmt: skip
NAUGHTY: dict[str, tuple[str, dict[str, Any], str]] = {
    "character map of noise": ("normalizer", {"type": "Precompiled", "precompiled_charsmap": NOISE}, "Panic"),
    "empty pattern": ("normalizer", {**GROW, "pattern": {"String": ""}}, "Panic"),
    "chunks of no letters": ("pre_tokenizer", {"type": "FixedLength", "length": 0}, "Panic"),
    "pattern without end": ("pre_tokenizer", ENDLESS, "hostile"),
    "frame of tokens that are not there": ("post_processor", GHOST, "hostile"),
    "text that grows": ("normalizer", {"type": "Sequence", "normalizers": [GROW] * 4}, "hostile"),
    "letters that it cannot encode": ("model", {"type": "Unigram", "unk_id": None, "vocab": [["a", 0.0]]},
                                      "cannot encode every text"),
}  # fmt: skip


@pytest.mark.parametrize("kind", NAUGHTY)
def test_hostile_tokenizers(folder: Path, kind: str) -> None:
    part, content, words = NAUGHTY[kind]
    change(folder, "tokenizer.json", **{part: content})
    sentence = refusal(folder)
    assert sentence.startswith(str(folder / "tokenizer.json"))
    assert words in sentence


@pytest.mark.parametrize("text", ["", "null", "{}", '{"version": "1.0", "model"'])
def test_tokenizers_that_are_none(folder: Path, text: str) -> None:
    (folder / "tokenizer.json").write_text(text)
    assert f"{folder / 'tokenizer.json'}: is no tokenizer" in refusal(folder)


def test_a_tokenizer_as_deep_as_a_well(folder: Path) -> None:
    depth = 50_000
    nested = '{"type":"Sequence","normalizers":[' * depth + '{"type":"Lowercase"}' + "]}" * depth
    text = (folder / "tokenizer.json").read_text()
    assert '"normalizer":null' in text
    (folder / "tokenizer.json").write_text(text.replace('"normalizer":null', f'"normalizer":{nested}'))
    assert f"{folder / 'tokenizer.json'}: " in refusal(folder)


def test_ids_that_no_table_has(folder: Path) -> None:
    pipeline = json.loads((folder / "tokenizer.json").read_text())
    pipeline["model"]["vocab"]["zz"] = 2**32 - 1
    (folder / "tokenizer.json").write_text(json.dumps(pipeline))
    assert "the tokenizer has ids up to 4,294,967,295" in refusal(folder)


# --------------------------------------------------------------------------- older folders
def test_tokenizer_of_vocabulary_and_merges(tmp_path: Path) -> None:
    from tests.parity.tokenizers_for_tests import TEXTS, gpt2_json
    from tfm.core.tokenizer import Tokenizer

    model = json.loads(gpt2_json())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (tmp_path / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    rebuilt, original = Tokenizer.from_json(read_tokenizer(tmp_path).text), Tokenizer.from_json(gpt2_json())
    assert [rebuilt.encode(text) for text in TEXTS] == [original.encode(text) for text in TEXTS]
    (tmp_path / "merges.txt").write_text("a b c\n")
    with pytest.raises(ValueError, match=r"merges\.txt: a line does not hold two pieces"):
        read_tokenizer(tmp_path)


def test_tokenizer_of_a_word_list(tmp_path: Path) -> None:
    from tests.parity.tokenizers_for_tests import TEXTS, bert_json
    from tfm.core.tokenizer import Tokenizer

    vocabulary = json.loads(bert_json())["model"]["vocab"]
    (tmp_path / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)))
    found = read_tokenizer(tmp_path, {"do_lower_case": True})
    assert (found.prefix, found.suffix) == ((2,), (3,))
    rebuilt, original = Tokenizer.from_json(found.text), Tokenizer.from_json(bert_json())
    assert [rebuilt.encode(text) for text in TEXTS] == [original.encode(text) for text in TEXTS]
    (tmp_path / "vocab.txt").write_text("a\nb\n")
    with pytest.raises(ValueError, match=r"vocab\.txt has no \[UNK\]"):
        read_tokenizer(tmp_path)


# --------------------------------------------------------------------------- exports
def test_what_no_family_has(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "ours", "encoder-only")
    with pytest.raises(ValueError, match="none of them is encoder-only, pre-norm, with sinusoidal positions"):
        export_folder(tmp_path / "ours", tmp_path / "there")
    make_checkpoint(tmp_path / "gelu", "encoder-decoder", norm="rmsnorm", sinusoidal_layout="halves-t2t")
    with pytest.raises(ValueError, match="m2m_100 has no norm = 'rmsnorm'"):
        export_folder(tmp_path / "gelu", tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_an_export_replaces_nothing(published: Path) -> None:
    with pytest.raises(ValueError, match="exists already"):
        export_folder(published.parent / "ours", published)


def test_positions_that_m2m100_counts_otherwise(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "ours", "encoder-decoder", sinusoidal_layout="halves-t2t", position_offset=5)
    with pytest.raises(ValueError, match="m2m_100 counts positions from pad_id"):
        export_folder(tmp_path / "ours", tmp_path / "there")
