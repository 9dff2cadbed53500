"""What "the same" means: logits, greedy continuations, tokenization, and all of it again after an export."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from tests.conftest import SENTENCES
from tests.parity.tokenizers_for_tests import TEXTS
from tfm.core.checkpoint import Checkpoint, load_checkpoint, verify_checkpoint
from tfm.core.convert.huggingface_in import import_folder
from tfm.core.convert.huggingface_out import export_folder
from tfm.core.engine.protocol import Lane
from tfm.core.generate import LaneFinished, generate
from tfm.core.model import DecoderOnly, EncoderDecoder, EncoderOnly
from tfm.core.prefill import encode_prompts
from tfm.core.sampling.settings import SamplingSettings

TOLERANCE = 1e-4  # absolute, on float32 logits
PROMPTS = SENTENCES[:4]
N_NEW = 50


def imported(folder: Path, **languages: str) -> Checkpoint:
    """The published folder as a checkpoint of ours, written, verified and loaded."""
    done = import_folder(folder, folder.parent / "ours", **languages)
    verify_checkpoint(done.path)
    return load_checkpoint(done.path)


def padded(rows: Sequence[Sequence[int]], pad_id: int) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask


def assert_same_logits(ours: Checkpoint, reference: Any) -> None:
    """A batch with padding; positions of padding are not looked at."""
    generator = torch.Generator().manual_seed(1)
    vocab_size, pad_id = ours.config.vocab_size, ours.config.pad_id
    legal = torch.tensor([i for i in range(vocab_size) if i != pad_id])

    def rows(*lengths: int) -> list[list[int]]:
        return [legal[torch.randint(len(legal), (n,), generator=generator)].tolist() for n in lengths]

    ids, mask = padded(rows(30, 17, 5), pad_id)
    real = mask.bool()
    with torch.inference_mode():
        if isinstance(ours.model, EncoderDecoder):
            tgt, tgt_mask = padded(rows(12, 20, 7), pad_id)
            mine = ours.model(ids, tgt, real)
            theirs = reference(input_ids=ids, attention_mask=mask, decoder_input_ids=tgt).logits
            real = tgt_mask.bool()
        elif isinstance(ours.model, DecoderOnly):
            mine, theirs = ours.model(ids), reference(input_ids=ids, attention_mask=mask).logits
        else:
            mine, theirs = ours.model(ids, real), reference(input_ids=ids, attention_mask=mask).logits
    largest = (mine - theirs)[real].abs().max().item()
    assert theirs[real].std() > 0.05, "the reference says nothing"
    assert largest <= TOLERANCE, f"logits differ by {largest}"


def assert_same_continuation(ours: Checkpoint, reference: Any) -> None:
    """Greedy, token by token, through our generation loop with its cache."""
    assert isinstance(ours.model, EncoderDecoder | DecoderOnly)
    greedy = SamplingSettings(temperature=0.0)
    lanes = [Lane(prompt=text, settings=greedy, seed=0) for text in PROMPTS]
    finished = {
        event.lane: event.tokens
        for event in generate(ours, lanes, max_tokens=N_NEW, n_top=0)
        if isinstance(event, LaneFinished)
    }
    prompts = encode_prompts(ours, PROMPTS, PROMPTS, [()] * len(PROMPTS))
    for lane, prompt in enumerate(prompts):
        fed = prompt.source if isinstance(ours.model, EncoderDecoder) else prompt.ids
        with torch.inference_mode():
            written = reference.generate(
                torch.tensor([fed]),
                do_sample=False,
                num_beams=1,
                max_new_tokens=N_NEW + len(ours.config.target_prefix),
            )[0].tolist()
        begun = len(prompt.ids)
        assert written[:begun] == list(prompt.ids)
        expected = written[begun:]
        assert tuple(expected) == finished[lane], f"lane {lane}"
        assert len(expected) == N_NEW or expected[-1] in ours.config.stop_ids


def assert_same_tokenization(ours: Checkpoint, published: Any) -> None:
    """Ids of texts as the model is fed with them, and texts of ids."""
    config = ours.config
    for text in TEXTS:
        theirs = published(text, split_special_tokens=True)["input_ids"]
        ids = ours.tokenizer.encode(text)
        if isinstance(ours.model, EncoderOnly):
            mine = [config.bos_id, *ids, config.eos_id]
        elif isinstance(ours.model, EncoderDecoder):
            mine = [*config.source_prefix, *ids, config.eos_id]
        else:
            mine = [*([] if config.start_id is None else [config.start_id]), *ids]
        assert mine == theirs, text
        if text:
            assert ours.tokenizer.decode(ids) == published.decode(ids, skip_special_tokens=True)


def exported(ours: Checkpoint, model: str) -> tuple[Any, Any]:
    """Model and tokenizer of transformers, opened from an export of ours."""
    folder = ours.path.with_name("exported")
    export_folder(ours.path, folder)
    loaded, info = getattr(transformers, model).from_pretrained(folder, output_loading_info=True)
    assert not info["unexpected_keys"]
    assert not {key for key in info["missing_keys"] if "pooler" not in key}
    return loaded.eval(), transformers.AutoTokenizer.from_pretrained(folder)


def assert_same_parameters(
    exported: torch.nn.Module, reference: torch.nn.Module, unused: Sequence[str] = ()
) -> None:
    theirs, mine = reference.state_dict(), exported.state_dict()
    assert theirs.keys() == mine.keys()
    for name, tensor in theirs.items():
        assert name in unused or torch.equal(tensor, mine[name]), name


def assert_parity(
    folder: Path, reference: Any, model: str, unused: Sequence[str] = (), **languages: str
) -> Checkpoint:
    """Everything at once, for a published folder and the model that wrote it."""
    ours = imported(folder, **languages)
    assert_same_logits(ours, reference)
    if not isinstance(ours.model, EncoderOnly):
        assert_same_continuation(ours, reference)
    published = transformers.AutoTokenizer.from_pretrained(folder, **_tokenizer_languages(languages))
    assert_same_tokenization(ours, published)
    back, tokenizer = exported(ours, model)
    assert_same_parameters(back, reference, unused)
    for text in TEXTS:
        assert tokenizer(text)["input_ids"] == published(text)["input_ids"], text
    return ours


def _tokenizer_languages(languages: dict[str, str]) -> dict[str, str]:
    names = {"source_language": "src_lang", "target_language": "tgt_lang"}
    return {names[name]: value for name, value in languages.items()}
