"""Models within a budget, prefixes within theirs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tfm.core.checkpoint import load_checkpoint
from tfm.core.engine.protocol import Lane
from tfm.core.engine.sessions import ModelStore, PrefixCache, check_room, choose_precision
from tfm.core.generate import LaneFinished, generate
from tfm.core.kv_cache import KVCache
from tfm.core.sampling.settings import SamplingSettings


def silent(_fraction: float, _stage: str) -> None:
    """Nobody watches the loading."""


@pytest.fixture
def three(tmp_path: Path, tiny_translator: Path) -> list[str]:
    """Names of three equal checkpoints."""
    names = [str(tmp_path / name) for name in ("one", "two", "three")]
    for name in names:
        shutil.copytree(tiny_translator, name)
    return names


def size_of(name: str) -> int:
    return sum(p.numel() * 4 for p in load_checkpoint(name).model.parameters())


def test_the_longest_unused_model_makes_room(three: list[str]) -> None:
    store = ModelStore(budget_bytes=int(2.5 * size_of(three[0])))
    for name in (three[0], three[1]):
        store.release(store.load(name, "fp32", silent))
    store.release(store.load(three[0], None, silent))  # used again, so the other one is older
    store.release(store.load(three[2], "fp32", silent))
    held = [store.find(name, None) is not None for name in three]
    assert held == [True, False, True]


def test_a_model_in_use_is_never_dropped(three: list[str]) -> None:
    store = ModelStore(budget_bytes=int(1.5 * size_of(three[0])))
    used = store.load(three[0], "fp32", silent)
    with pytest.raises(MemoryError, match="GB are in use"):
        store.load(three[1], "fp32", silent)
    store.drop(used)
    assert store.find(three[0], None) is used
    store.release(used)
    store.release(used)
    store.load(three[1], "fp32", silent)
    assert store.find(three[0], None) is None


def test_a_model_is_found_by_precision(three: list[str]) -> None:
    store = ModelStore()
    half = store.load(three[0], "bf16", silent)
    assert half.checkpoint.dtype == torch.bfloat16
    assert store.find(three[0], "fp32") is None
    full = store.load(three[0], "fp32", silent)
    assert store.find(three[0], "bf16") is half
    assert store.find(three[0], "fp32") is full
    assert store.find(three[0], None) is full  # the one used last
    assert store.find(three[0], "int8") is None


def test_a_checkpoint_that_its_run_let_go_of_stays_in_use(
    tiny_decoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFM_HOME", str(tmp_path))
    run = tmp_path / "runs" / "mine-1122-1503"
    folder = shutil.copytree(tiny_decoder, run / "step-000500")
    (run / "config.toml").write_text("")
    store = ModelStore()
    model = store.load("mine-1122-1503", None, silent)
    assert model.info.name == "mine-1122-1503@500"
    shutil.rmtree(folder)
    assert store.find(model.info.name, None) is model
    assert store.find("mine-1122-1503@400", None) is None


def test_auto_precision() -> None:
    assert choose_precision("auto", 10_000_000, "cpu") == "fp32"
    assert choose_precision("auto", 135_000_000, "cpu") == "fp32"
    assert choose_precision("auto", 1_100_000_000, "cpu") == "bf16"
    assert choose_precision("auto", 10_000_000, "cuda:0") == "bf16"
    with pytest.raises(NotImplementedError, match="int8"):
        choose_precision("int8", 1, "cpu")


def test_more_lanes_than_memory_are_refused(three: list[str]) -> None:
    model = ModelStore().load(three[0], "fp32", silent)
    check_room(model, 1, 100)
    with pytest.raises(MemoryError, match="GB are free"):
        check_room(model, 10**9, 100)


def test_prefixes_are_found_by_their_longest_beginning(tiny_decoder: Path) -> None:
    config = load_checkpoint(tiny_decoder).config

    def cache_of(n_tokens: int) -> KVCache:
        cache = KVCache.create(config, 1, 64)
        cache.advance(n_tokens)
        return cache

    size = cache_of(1).nbytes()
    prefixes = PrefixCache(max_bytes=2 * size)
    first, second = cache_of(4), cache_of(3)
    prefixes.store((), (1, 2, 3, 4), first)
    prefixes.store((9,), (1, 2, 3), second)
    assert prefixes.lookup((), (1, 2, 3, 7)) == (first, 3)
    assert prefixes.lookup((9,), (1, 2)) == (second, 2)
    assert prefixes.lookup((8,), (1, 2)) is None  # another source
    assert prefixes.lookup((), (5,)) is None
    assert prefixes.n_reused == 5
    prefixes.store((9,), (1, 2), cache_of(2))  # a longer one is there
    assert prefixes.lookup((9,), (1, 2, 3)) == (second, 3)
    longer = cache_of(5)
    prefixes.store((9,), (1, 2, 3, 4, 5), longer)  # replaces what it extends
    assert prefixes.nbytes() == 2 * size
    prefixes.store((), (7,), cache_of(1))  # too much: the one unused for longest goes
    assert prefixes.lookup((), (1, 2)) is None
    assert prefixes.lookup((9,), (1, 2, 3, 4)) == (longer, 4)


def test_a_reused_prefix_changes_no_token(tiny_translator: Path) -> None:
    """Slow twin: the same lanes with and without the prefixes of earlier ones."""
    checkpoint = load_checkpoint(tiny_translator)
    prefixes = PrefixCache(max_bytes=1 << 30)
    settings = SamplingSettings(temperature=1.3, banned=(2,), repetition=1.2)

    def run(lane: Lane, known: PrefixCache | None) -> tuple[int, ...]:
        records = generate(checkpoint, [lane], max_tokens=20, prefix_cache=known)
        return next(record.tokens for record in records if isinstance(record, LaneFinished))

    written = run(Lane(prompt="A man in a blue shirt.", settings=settings), prefixes)
    for keep in (19, 10, 11, 0, 20):
        lane = Lane(prompt="A man in a blue shirt.", settings=settings, seed=keep, prefix=written[:keep])
        assert run(lane, prefixes) == run(lane, None)
    assert prefixes.n_reused >= 40


@pytest.mark.parametrize("family", ["tiny_translator", "tiny_decoder"])
def test_a_model_loads_and_writes_without_the_compiler(family: str, request: pytest.FixtureRequest) -> None:
    """torch imports it, for seconds, when random numbers or ranges are asked for on the meta device."""
    code = f"""
import sys
from tfm.core.checkpoint import load_checkpoint
from tfm.core.engine.protocol import Lane
from tfm.core.generate import generate
checkpoint = load_checkpoint({str(request.getfixturevalue(family))!r})
list(generate(checkpoint, [Lane(prompt="A man.")], max_tokens=2))
print("torch._dynamo" in sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
