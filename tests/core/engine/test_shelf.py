"""Checkpoints as folders, through a real engine: card, verify, import, delete; loads that are called off."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from tests.conftest import make_checkpoint
from tfm.core import catalog
from tfm.core.checkpoint import load_checkpoint, save_checkpoint
from tfm.core.engine import protocol
from tfm.core.engine.sessions import ModelStore
from tfm.core.engine.steps import NotWanted

HOSTILE = "\x1b]52;c;aGFja2Vk\x07[b]bold[@click=app.leave]\u202e"
# Reading a tensor takes a while, as from a slow disk, so that there is a middle to cancel in.
SLOW = """
import time
from tfm.core import checkpoint
each_tensor = checkpoint.each_tensor
def slowly(*args, **options):
    for item in each_tensor(*args, **options):
        time.sleep(0.05)
        yield item
checkpoint.each_tensor = slowly
"""

Engine = Any


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture(scope="module")
def engine(start_engine: Callable[..., Engine], home: Path) -> Engine:
    begin = f"import os; os.environ['TFM_HOME'] = {str(home)!r}"
    return start_engine(f"{begin}\n{SLOW}\nfrom tfm.core.engine.server import main; raise SystemExit(main())")


@pytest.fixture
def mine(home: Path, tiny_decoder: Path) -> Path:
    """A checkpoint ``mine`` of the user's own."""
    folder = home / "checkpoints" / "mine"
    shutil.rmtree(folder.parent, ignore_errors=True)
    return Path(shutil.copytree(tiny_decoder, folder))


def only(events: list[protocol.Event], kind: type[protocol.Event]) -> Any:
    found = [event for event in events if isinstance(event, kind)]
    assert len(found) == 1, events
    return found[0]


def listed(engine: Engine) -> protocol.ModelsListed:
    answer = only(engine.ask(protocol.ModelsList(id=99)), protocol.ModelsListed)
    assert isinstance(answer, protocol.ModelsListed)
    return answer


# --------------------------------------------------------------------------- card
def test_a_card_is_given_as_it_is(engine: Engine, mine: Path) -> None:
    text = f"# {HOSTILE}\n" + "a line\n" * 5000
    (mine / "card.md").write_text(text)
    card = only(engine.ask(protocol.ModelsCard(id=1, model="mine")), protocol.ModelCard)
    assert card.card == text
    assert card.config["family"] == "decoder-only" and card.config["sliding_window"] is None
    assert card.files["card.md"] == len(text.encode()) and card.training["scores"] == {"bleu": 12.5}


def test_a_broken_checkpoint_has_a_card_too(engine: Engine, mine: Path) -> None:
    (mine / "config.json").write_bytes(b"\xff{")
    (mine / "training.json").write_bytes(b"[]")
    (mine / "card.md").write_bytes(b"caf\xe9\n")
    card = only(engine.ask(protocol.ModelsCard(id=1, model="mine")), protocol.ModelCard)
    assert card.config == {} == card.training and card.card == "caf\ufffd\n" and card.info.problem
    error = only(engine.ask(protocol.ModelsCard(id=2, model="no-such")), protocol.Error)
    assert error.kind == "not_found"


def test_a_name_that_is_no_utf8_does_not_break_the_list(engine: Engine, mine: Path) -> None:
    mine.rename(mine.parent / b"caf\xe9".decode("utf-8", "surrogateescape"))
    info = next(info for info in listed(engine).models if info.source == "local")
    assert (info.name, info.problem) == ("caf\ufffd", "the name of its folder is not UTF-8; rename it")
    assert only(engine.ask(protocol.ModelsCard(id=1, model=info.name)), protocol.Error).kind == "not_found"


# --------------------------------------------------------------------------- verify
def test_verify_tells_how_far_it_is_and_what_is_wrong(engine: Engine, mine: Path) -> None:
    events = engine.ask(protocol.ModelsVerify(id=1, model="mine"))
    told = [e.fraction for e in events if isinstance(e, protocol.LoadProgress) and e.stage == "checking"]
    assert len(told) > 5 and told == sorted(told) and told[-1] > 0.9
    verified = only(events, protocol.ModelVerified)
    assert verified.problem == "" and verified.n_files == 6 and verified.n_bytes > 0

    data = bytearray((mine / "model.safetensors").read_bytes())
    data[-3] ^= 1
    (mine / "model.safetensors").write_bytes(data)
    verified = only(engine.ask(protocol.ModelsVerify(id=2, model="mine")), protocol.ModelVerified)
    assert "model.safetensors has changed" in verified.problem
    assert only(engine.ask(protocol.ModelsVerify(id=3, model="nix")), protocol.Error).kind == "not_found"


def test_numbers_that_are_not_finite_are_found(engine: Engine, mine: Path) -> None:
    checkpoint = load_checkpoint(mine)
    with torch.no_grad():
        next(checkpoint.model.parameters())[3] = float("nan")
    save_checkpoint(mine, checkpoint.model, checkpoint.config, checkpoint.tokenizer, "# NaN\n")
    verified = only(engine.ask(protocol.ModelsVerify(id=1, model="mine")), protocol.ModelVerified)
    assert "embedding.tokens.weight holds values that are not finite" in verified.problem


def test_a_tokenizer_that_brings_its_parser_down_is_a_sentence(engine: Engine, mine: Path) -> None:
    (mine / "MANIFEST.json").unlink()
    (mine / "tokenizer.json").write_text(
        '{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,'
        '"pre_tokenizer":{"type":"Split","pattern":{"Regex":"(?=["},"behavior":"Isolated","invert":false},'
        '"post_processor":null,"decoder":null,"model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"b"}}'
    )
    verified = only(engine.ask(protocol.ModelsVerify(id=1, model="mine")), protocol.ModelVerified)
    assert "tokenizer.json" in verified.problem and "\n" not in verified.problem
    assert listed(engine)


def test_a_cancelled_verify_ends(engine: Engine, mine: Path) -> None:
    def cancel(event: protocol.Event) -> None:
        if isinstance(event, protocol.LoadProgress) and event.stage == "checking":
            engine.send(protocol.Cancel(id=2, target=1))

    engine.send(protocol.ModelsVerify(id=1, model="mine"))
    events = [event for event in engine.until(1, seen=cancel) if event.id == 1]
    assert events[-1].detail == {"cancelled": True}
    assert not any(isinstance(event, protocol.ModelVerified) for event in events)


# --------------------------------------------------------------------------- delete
def test_only_ones_own_are_deleted(engine: Engine, mine: Path, home: Path, tmp_path: Path) -> None:
    elsewhere = Path(shutil.copytree(mine, tmp_path / "elsewhere"))
    saved = Path(shutil.copytree(mine, home / "runs" / "r-1" / "average"))
    (saved.parent / "config.toml").write_text('name = "r"\n')
    bundled = next((i.name for i in listed(engine).models if i.source == "bundled"), None)
    for name, said in [
        (str(elsewhere), "does not lie under"),
        ("r-1/average", "belongs to its training run"),
    ] + ([(bundled, "is bundled")] if bundled else []):
        error = only(engine.ask(protocol.ModelsDelete(id=1, model=name)), protocol.Error)
        assert error.kind == "bad_request" and said in error.message, error
    assert elsewhere.is_dir() and saved.is_dir()
    assert only(engine.ask(protocol.ModelsDelete(id=1, model="no-such")), protocol.Error).kind == "not_found"

    engine.ask(protocol.ModelLoad(id=1, model="mine"))
    assert [held.path for held in listed(engine).held] == [str(mine)]
    assert isinstance(engine.ask(protocol.ModelsDelete(id=1, model="mine"))[-1], protocol.Done)
    assert not mine.exists() and list(mine.parent.iterdir()) == [] and listed(engine).held == ()


def test_of_a_link_only_the_link_is_deleted(engine: Engine, mine: Path, tmp_path: Path) -> None:
    target = mine.rename(tmp_path / "target")
    mine.symlink_to(target)
    assert isinstance(engine.ask(protocol.ModelsDelete(id=1, model="mine"))[-1], protocol.Done)
    assert not mine.is_symlink() and (target / "model.safetensors").is_file()


def test_what_is_in_use_is_not_deleted(engine: Engine, mine: Path) -> None:
    engine.ask(protocol.ModelLoad(id=1, model="mine"))
    lane = protocol.Lane(prompt="A man", settings=protocol.NEUTRAL)
    refused: list[protocol.Error] = []

    def watch(event: protocol.Event) -> None:
        if isinstance(event, protocol.Token) and event.position == event.lane == 0:
            engine.send(protocol.ModelsDelete(id=3, model="mine"), protocol.ModelUnload(id=4, model="mine"))
        elif isinstance(event, protocol.Error):
            refused.append(event)
            if len(refused) == 2:
                engine.send(protocol.Cancel(id=5, target=2))

    engine.send(protocol.Generate(id=2, model="mine", lanes=(lane,) * 64, max_tokens=120))
    engine.until(2, 3, 4, seen=watch)
    assert {error.id for error in refused} == {3, 4} and "is in use" in refused[0].message
    assert mine.is_dir()
    assert engine.ask(protocol.ModelUnload(id=6, model="mine"))[-1].detail["freed"] > 0


# --------------------------------------------------------------------------- loads that are called off
def test_a_cancelled_load_keeps_nothing(engine: Engine, mine: Path) -> None:
    begun = []

    def cancel(event: protocol.Event) -> None:
        if isinstance(event, protocol.LoadProgress) and event.fraction > 0 and not begun:
            begun.append(event.fraction)
            engine.send(protocol.Cancel(id=2, target=1))

    engine.send(protocol.ModelLoad(id=1, model="mine"))
    events = [event for event in engine.until(1, 2, seen=cancel) if event.id == 1]
    assert isinstance(events[-1], protocol.Done) and events[-1].detail == {"cancelled": True}
    assert not any(isinstance(event, protocol.ModelLoaded) for event in events) and begun[0] < 1
    assert listed(engine).held == ()
    loaded = only(engine.ask(protocol.ModelLoad(id=3, model="mine")), protocol.ModelLoaded)
    assert loaded.info.name == "mine" and len(listed(engine).held) == 1
    engine.ask(protocol.ModelUnload(id=4, model="mine"))


def test_the_memory_of_a_load_called_off_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TFM_HOME", str(tmp_path))
    folder = make_checkpoint(
        tmp_path / "checkpoints" / "large", "decoder-only", positions="rotary", d_model=1024, d_ff=8192
    )
    size = (folder / "model.safetensors").stat().st_size
    assert size > 150e6
    store, me, most = ModelStore(), psutil.Process(), 0

    def progress(fraction: float, _stage: str) -> None:
        nonlocal most
        most = max(most, me.memory_info().rss)
        if fraction > 0.8:
            raise NotWanted

    before = me.memory_info().rss
    with pytest.raises(NotWanted):
        store.load("large", "fp32", progress)
    assert most - before > 0.6 * size  # it was there
    assert me.memory_info().rss - before < 0.2 * size
    assert store.held() == () and store.find("large", None) is None


# --------------------------------------------------------------------------- import
def test_an_import_is_told_of_and_can_be_called_off(engine: Engine, mine: Path, tmp_path: Path) -> None:
    from tfm.core.convert.huggingface_out import export_folder

    no_biases = dict.fromkeys(("qkv_bias", "out_bias", "ff_bias", "scale_embeddings"), False)
    llama = make_checkpoint(
        tmp_path / "llama", "decoder-only", positions="rotary", norm="rmsnorm", activation="silu",
        gated_ff=True, **no_biases,
    )  # fmt: skip
    theirs = export_folder(llama, tmp_path / "theirs").path
    for source, name, said in [
        (theirs, "mine", "already"),
        (theirs, "../up", "no path"),
        (theirs, "en-de", "bundled")
        if (catalog.bundled_folder() / "en-de").is_dir()
        else ("", "x", "no folder"),
        (tmp_path / "none", "new", "no folder or file"),
        ("owner/name", "new", "no folder or file"),
        (mine, "new", ""),
    ]:
        error = only(engine.ask(protocol.ModelsImport(id=1, source=str(source), name=name)), protocol.Error)
        assert said in error.message and "\n" not in error.message
    events = engine.ask(protocol.ModelsImport(id=1, source=str(theirs), name="new"))
    info = only(events, protocol.ModelImported).info
    assert (info.name, info.source, info.problem) == ("new", "local", "")
    assert any(isinstance(e, protocol.LoadProgress) and e.stage == "importing" for e in events)

    def cancel(event: protocol.Event) -> None:
        if isinstance(event, protocol.LoadProgress) and event.stage == "reading":
            engine.send(protocol.Cancel(id=3, target=2))

    engine.send(protocol.ModelsImport(id=2, source=str(theirs), name="other"))
    events = [event for event in engine.until(2, 3, seen=cancel) if event.id == 2]
    assert events[-1].detail == {"cancelled": True}
    assert sorted(folder.name for folder in mine.parent.iterdir()) == ["mine", "new"]
