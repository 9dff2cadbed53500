"""A published chat template, wherever a folder keeps it, makes the prompt that the reference makes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers

from tests.conftest import make_checkpoint
from tests.parity.compare import exported, imported
from tests.parity.conftest import Build
from tests.parity.tokenizers_for_tests import chat_json, gpt2_json, save_tokenizer
from tfm.core.chat import DIALOGUE_TEMPLATE, chat_prompt_ids
from tfm.core.checkpoint import load_checkpoint

CHATML = (
    "{% if messages[0].role != 'system' %}{{ bos_token + 'system\nBe brief.' + eos_token + '\n' }}{% endif %}"
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHAT = [
    {"role": "user", "content": "Hello! What is  a boat?\n"},
    {"role": "assistant", "content": "A man in a boat."},
    {"role": "user", "content": "Ünd ein Boot 🙂?"},
]
PLACES = {
    "its own file": ("chat_template.jinja", CHATML),
    "tokenizer_config.json": ("tokenizer_config.json", {"chat_template": CHATML}),
    "a list of several": (
        "tokenizer_config.json",
        {"chat_template": [{"name": "rag", "template": "no"}, {"name": "default", "template": CHATML}]},
    ),
    "chat_template.json": ("chat_template.json", {"chat_template": CHATML}),
}


@pytest.mark.parametrize("place", PLACES)
def test_chat_template(reference: Build, tmp_path: Path, place: str) -> None:
    def save(folder: Path) -> int:
        size = save_tokenizer(folder, chat_json(), bos_token="<|im_start|>", eos_token="<|im_end|>")
        file, content = PLACES[place]
        if isinstance(content, dict):
            path = folder / file
            before = json.loads(path.read_text()) if path.exists() else {}
            path.write_text(json.dumps({**before, **content}))
        else:
            (folder / file).write_text(content)
        return size

    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
             "max_position_embeddings": 256, "eos_token_id": 381}  # fmt: skip
    reference("LlamaForCausalLM", "LlamaConfig", save, **shape)
    ours = imported(tmp_path / "published")
    assert (ours.path / "chat_template.jinja").read_text() == CHATML
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "published")
    if place == "chat_template.json":  # read by processors alone there
        tokenizer.chat_template = CHATML
    for n in (1, 3):
        theirs = tokenizer.apply_chat_template(CHAT[:n], add_generation_prompt=True, return_dict=False)
        assert list(chat_prompt_ids(ours, CHAT[:n], 20).ids) == theirs
    _, back = exported(ours, "LlamaForCausalLM")
    assert back.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False) == theirs


def test_no_template_is_no_template(reference: Build, tmp_path: Path) -> None:
    shape = {"n_positions": 64, "n_embd": 32, "n_layer": 1, "n_head": 4, "bos_token_id": 0, "eos_token_id": 0}
    reference("GPT2LMHeadModel", "GPT2Config", lambda folder: save_tokenizer(folder, gpt2_json()), **shape)
    ours = imported(tmp_path / "published")
    with pytest.raises(ValueError, match="has no chat template"):
        chat_prompt_ids(ours, CHAT, 20)


def test_our_dialogue_models_chat_elsewhere(tmp_path: Path) -> None:
    fields = {"positions": "rotary", "norm": "rmsnorm", "gated_ff": True, "activation": "silu",
              "qkv_bias": False, "out_bias": False, "ff_bias": False, "scale_embeddings": False}  # fmt: skip
    folder = make_checkpoint(tmp_path / "ours", "decoder-only", **fields)
    (folder / "chat_template.jinja").write_text(DIALOGUE_TEMPLATE)
    ours = load_checkpoint(folder)
    _, tokenizer = exported(ours, "LlamaForCausalLM")
    theirs = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
    assert list(chat_prompt_ids(ours, CHAT, 20).ids) == theirs
