"""Ways to run a step that must not change what it computes, and the moving average of the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.core.models import small_model
from tests.train.corpora import make_run, of, same_weights, train, translation_fields
from tfm.core.checkpoint import load_checkpoint, verify_checkpoint
from tfm.core.model import build_model
from tfm.train.ema import WeightAverage
from tfm.train.events import CheckpointSaved, Evaluated, Notice, RunEnded, Step
from tfm.train.execution import find_precision
from tfm.train.loop import Trainer
from tfm.train.state import OPTIMIZER_FILE


def fields(corpus: Path, **loop: Any) -> dict[str, Any]:
    made = translation_fields(
        corpus, **{"log_every": 1, "eval_every": 1000, "bleu_sentences": 0, "max_steps": 8, **loop}
    )
    made["model"]["dropout"] = 0.2
    return made


# --------------------------------------------------------------------------- moving average
def test_the_average_is_that_of_the_formula() -> None:
    model = small_model()
    average, parameter = WeightAverage(model, 0.9), model.head.projection.weight
    expected = parameter.detach().clone()
    for step in range(1, 120):
        with torch.no_grad():
            parameter.add_(torch.randn_like(parameter))
        average.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * parameter.detach()
    name = next(name for name, p in model.named_parameters() if p is parameter)
    torch.testing.assert_close(average.weights()[name], expected)


def test_within_the_block_the_model_is_the_average_and_afterwards_itself_again() -> None:
    model = small_model()
    average = WeightAverage(model, 0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    with pytest.raises(ZeroDivisionError), average.in_place():
        assert all(
            torch.equal(parameter, old - 1.0) or torch.allclose(parameter, old - 1.0, atol=1e-6)
            for parameter, old in zip(model.parameters(), before, strict=True)
        )
        1 / 0  # noqa: B018
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


def test_a_run_with_an_average_is_resumed_bitwise_and_ends_with_it(tmp_path: Path, corpus: Path) -> None:
    made = fields(corpus, save_every=3, average_last=5)
    made["optim"]["ema"] = 0.9
    config, whole = make_run(tmp_path, made, "whole")
    straight = train(config, whole)
    config, parts = make_run(tmp_path, made, "parts")
    for event in Trainer(config, parts).run():
        if isinstance(event, CheckpointSaved) and event.step == 6:
            break
    torch.manual_seed(4)
    resumed = train(config, parts)
    losses = {step.step: step.loss for step in of(Step, straight)}
    assert all(step.loss == losses[step.step] for step in of(Step, resumed))
    assert [step.step for step in of(Step, resumed)] == [7, 8]
    for name in ("step-000008", "average"):
        verify_checkpoint(parts.path / name)
        assert same_weights(parts.path / name, whole.path / name)
    assert same_weights(whole.path / "average", whole.path / "step-000008")
    raw = {
        key.removesuffix("|weight"): tensor
        for key, tensor in load_file(whole.path / "step-000008" / OPTIMIZER_FILE).items()
        if key.endswith("|weight")
    }
    kept = load_file(whole.path / "step-000008" / "model.safetensors")
    assert raw.keys() == kept.keys()
    assert not any(torch.equal(raw[name], kept[name]) for name in raw if raw[name].ndim > 1)


def test_what_is_scored_is_what_is_kept(tmp_path: Path, corpus: Path) -> None:
    made = fields(corpus, eval_every=4, max_steps=4)
    made["optim"]["ema"] = 0.99
    config, run = make_run(tmp_path, made)
    scores = of(Evaluated, train(config, run))[-1]
    trainer = Trainer(config, run, resume=True)
    for event in trainer.run():
        if isinstance(event, RunEnded):
            break
    again = trainer.task.evaluate(load_checkpoint(run.checkpoint_path(4)), 4)
    assert (again.loss, again.accuracy) == (scores.loss, scores.accuracy)


def test_the_average_can_be_turned_on_and_off_when_a_run_is_resumed(tmp_path: Path, corpus: Path) -> None:
    plain, averaged = fields(corpus, save_every=4, max_steps=4), fields(corpus, save_every=4)
    averaged["optim"] = plain["optim"] | {"ema": 0.9}
    config, run = make_run(tmp_path, plain, "on")
    train(config, run)
    config, _ = make_run(tmp_path, averaged)
    losses = {step.step: step.loss for step in of(Step, train(config, run))}
    config, run = make_run(tmp_path, averaged | {"loop": plain["loop"]}, "off")
    train(config, run)
    config, _ = make_run(tmp_path, fields(corpus, save_every=4))
    assert losses == {step.step: step.loss for step in of(Step, train(config, run))}


# --------------------------------------------------------------------------- how a step is run
def test_computing_activations_again_changes_nothing(tmp_path: Path, corpus: Path) -> None:
    config, plain = make_run(tmp_path, fields(corpus), "plain")
    losses = [step.loss for step in of(Step, train(config, plain))]
    config, run = make_run(tmp_path, fields(corpus, gradient_checkpointing=True), "recomputed")
    assert [step.loss for step in of(Step, train(config, run))] == losses
    assert same_weights(run.checkpoint_path(8), plain.checkpoint_path(8))


def test_what_cannot_be_compiled_is_trained_as_it_is(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(inductor, "force_disable_caches", True)
    torch._dynamo.reset()
    config, plain = make_run(tmp_path, fields(corpus, max_steps=3), "plain")
    losses = [step.loss for step in of(Step, train(config, plain))]
    config, run = make_run(tmp_path, fields(corpus, max_steps=3, compile=True), "compiled")
    events = train(config, run)
    assert any("the layers are not compiled: " in notice.message for notice in of(Notice, events))
    assert [step.loss for step in of(Step, events)] == losses
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
def test_compiled_layers_compute_the_same(tmp_path: Path, corpus: Path, recompute: bool) -> None:
    config, plain = make_run(tmp_path, fields(corpus), "plain")
    losses = [step.loss for step in of(Step, train(config, plain))]
    made = fields(corpus, compile=True, gradient_checkpointing=recompute)
    config, run = make_run(tmp_path, made, "compiled")
    events = train(config, run)
    assert not any("compiled" in notice.message for notice in of(Notice, events))
    assert [step.loss for step in of(Step, events)] == pytest.approx(losses, rel=1e-4)


def test_the_names_of_weights_stay_what_they_are(tmp_path: Path, corpus: Path) -> None:
    config, run = make_run(tmp_path, fields(corpus, max_steps=2, gradient_checkpointing=True))
    train(config, run)
    checkpoint = load_checkpoint(run.checkpoint_path(2))
    fresh = build_model(checkpoint.config)
    assert [name for name, _ in checkpoint.model.named_parameters()] == [
        name for name, _ in fresh.named_parameters()
    ]


@pytest.mark.parametrize(
    ("amx", "dot_products", "precision"),
    [(True, True, torch.bfloat16), (False, True, torch.bfloat16), (False, False, torch.float32)],
)
def test_a_cpu_computes_in_what_its_hardware_multiplies(
    monkeypatch: pytest.MonkeyPatch, amx: bool, dot_products: bool, precision: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: dot_products)
    cpu = torch.device("cpu")
    assert find_precision("auto", cpu) is precision
    assert find_precision("fp32", cpu) is torch.float32
    assert find_precision("bf16", cpu) is torch.bfloat16
