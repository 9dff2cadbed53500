"""A real engine process: what it answers, what it refuses, how it ends."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tfm.core import introspect
from tfm.core.checkpoint import load_checkpoint
from tfm.core.engine import protocol

Engine = Any  # tests/core/engine/conftest.py: EngineProcess


def only(events: list[protocol.Event], kind: type[protocol.Event]) -> Any:
    found = [event for event in events if isinstance(event, kind)]
    assert len(found) == 1, events
    return found[0]


def test_hello_is_answered_before_torch_is_there(own_engine: Engine) -> None:
    begun = time.perf_counter()
    own_engine.send(protocol.Hello(id=7))
    first = own_engine.next()
    assert isinstance(first, protocol.Welcome)
    assert (first.id, first.version, first.device) == (7, protocol.PROTOCOL_VERSION, "")
    assert first.pid == own_engine.process.pid
    second = own_engine.next()
    assert isinstance(second, protocol.Welcome)
    assert (second.id, second.pid) == (0, first.pid)
    assert second.device == "cpu"
    assert time.perf_counter() - begun < 60


def test_another_version_is_refused_with_a_sentence(engine: Engine) -> None:
    engine.send(protocol.Hello(id=1, version=99))
    error = engine.next()
    assert isinstance(error, protocol.Error) and error.kind == "unsupported"
    assert "99" in error.message and "install the same" in error.message


@pytest.mark.parametrize(
    ("line", "answered"),
    [
        (b"garbage", 0),
        (b"{", 0),
        (b"[1, 2]", 0),
        (b'{"op": "no.such.thing", "id": 5}', 5),
        (b'{"op": "generate", "id": 6, "model": 3}', 6),
        (b'{"op": "box.stats"}', 0),
        (b'{"op": "box.stats", "id": "x"}', 0),
        (b"\xff\xfe\x00", 0),
        (b"[" * 100_000, 0),
    ],
)
def test_a_line_that_is_no_request_is_answered_and_survived(
    engine: Engine, line: bytes, answered: int
) -> None:
    engine.send_raw(line + b"\n\n  \n")
    engine.send(protocol.ModelsList(id=9))
    events = engine.until(9)
    error = only(events, protocol.Error)
    assert (error.id, error.kind) == (answered, "bad_request")
    assert only(events, protocol.ModelsListed).id == 9


def test_a_line_that_never_ends_is_skipped(engine: Engine) -> None:
    for _ in range(17):
        engine.send_raw(b"x" * (1 << 20))
    engine.send_raw(b"\n")
    engine.send(protocol.ModelsList(id=9))
    events = engine.until(9)
    assert "at most" in only(events, protocol.Error).message


def test_box_stats(engine: Engine) -> None:
    box = only(engine.ask(protocol.BoxStats(id=2)), protocol.Box)
    assert 0 < box.memory_used <= box.memory_total
    assert 0 <= box.cpu_percent <= 100


def test_models_load_and_score_as_in_process(engine: Engine, tiny_translator: Path) -> None:
    name = str(tiny_translator)
    events = engine.ask(protocol.ModelLoad(id=1, model=name))
    loaded = only(events, protocol.ModelLoaded)
    assert (loaded.device, loaded.precision) == ("cpu", "fp32")
    assert loaded.info.path == name and loaded.info.languages == ("English", "German")
    progress = [event.fraction for event in events if isinstance(event, protocol.LoadProgress)]
    assert progress == sorted(progress) and progress[-1] == 1.0

    source, text = "A man.", "Ein Mann."
    scored = only(engine.ask(protocol.Score(id=2, model=name, text=text, source=source)), protocol.Scored)
    assert scored.tokens == introspect.score(load_checkpoint(tiny_translator), text, source).tokens
    attended = engine.ask(protocol.Attend(id=3, model=name, text=text, source=source))[:-1]
    assert [event.part for event in attended] == ["cross", "decoder", "encoder"]
    weights = attended[0].layers[0][0]
    assert len(weights) == len(attended[0].target_pieces)
    assert [sum(row) for row in weights] == pytest.approx([1.0] * len(weights), abs=1e-2)


def test_tokens_are_told_by_text_and_by_id(engine: Engine, tiny_translator: Path) -> None:
    name, tokenizer = str(tiny_translator), load_checkpoint(tiny_translator).tokenizer
    asked = protocol.Tokenize(id=1, model=name, texts=("A man</s>", ""), ids=(2, 300))
    told = only(engine.ask(asked), protocol.Tokenized)
    assert [token.token for token in told.texts[0]] == tokenizer.encode("A man</s>")
    assert "".join(token.piece for token in told.texts[0]) == " A man</s>"
    assert told.texts[1] == () and not any(token.special for token in told.texts[0])
    assert [(token.token, token.piece, token.special) for token in told.ids] == [
        (2, "</s>", True),
        (300, tokenizer.piece(300), False),
    ]


def test_masks_are_filled(engine: Engine, tiny_filler: Path) -> None:
    filled = only(
        engine.ask(protocol.Fill(id=1, model=str(tiny_filler), text="A [MASK].", n_top=4)), protocol.Filled
    )
    assert filled.pieces[filled.masks[0].position] == "<mask>"
    assert len(filled.masks[0].candidates) == 4


def test_what_cannot_be_served_is_an_error_of_its_kind(
    engine: Engine, tiny_translator: Path, tmp_path: Path
) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(tiny_translator, cut)
    with (cut / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    senseless = tmp_path / "senseless"
    shutil.copytree(tiny_translator, senseless)
    (senseless / "MANIFEST.json").unlink()
    (senseless / "tokenizer.json").write_text("{}")
    good = str(tiny_translator)
    cases: list[tuple[protocol.Request, str, str]] = [
        (protocol.ModelLoad(id=1, model="no-such"), "not_found", "no-such"),
        (protocol.ModelLoad(id=2, model=str(cut)), "bad_checkpoint", "model.safetensors"),
        (protocol.ModelLoad(id=3, model=str(senseless)), "bad_checkpoint", "tokenizer.json"),
        (protocol.ModelLoad(id=4, model=good, precision="int4"), "unsupported", "int4"),
        (protocol.Score(id=5, model=good, text="x"), "bad_request", "source"),
        (protocol.Score(id=6, model=good, text="x " * 50_000, source="A man."), "bad_request", "at most"),
        (protocol.Fill(id=7, model=good, text="A [MASK]."), "bad_request", "encoder-only"),
        (protocol.RunsList(id=8), "unsupported", "RunsList"),
        (protocol.Tokenize(id=9, model=good, ids=(4_000,)), "bad_request", "no token 4000"),
    ]
    for request, kind, said in cases:
        error = only(engine.ask(request), protocol.Error)
        assert error.kind == kind and said in error.message, error
        assert "\n" not in error.message
    assert only(engine.ask(protocol.ModelLoad(id=1, model=good)), protocol.ModelLoaded)


def test_cancel_and_tune_of_what_has_ended_are_no_errors(engine: Engine) -> None:
    for request in (
        protocol.Cancel(id=1, target=99),
        protocol.Tune(id=2, target=99, settings=protocol.NEUTRAL),
    ):
        assert only(engine.ask(request), protocol.Done).detail == {"found": False}
    wrong = msgspec.structs.replace(protocol.NEUTRAL, temperature=-1.0)
    error = only(engine.ask(protocol.Tune(id=3, target=99, settings=wrong)), protocol.Error)
    assert error.kind == "bad_request" and "temperature" in error.message


def test_shutdown_ends_it(own_engine: Engine) -> None:
    own_engine.ask(protocol.Shutdown(id=1))
    assert own_engine.process.wait(60) == 0


def test_the_end_of_input_ends_it_at_any_time(start_engine: Any, tiny_translator: Path) -> None:
    at_once = start_engine()
    assert at_once.end() == 0
    loading = start_engine()
    loading.send(protocol.ModelLoad(id=1, model=str(tiny_translator)))
    assert loading.end() == 0
    torn = start_engine()
    torn.send_raw(b'{"op": "box.st')
    assert torn.end() == 0


def test_ctrl_c_ends_it_without_a_traceback(own_engine: Engine, tiny_translator: Path) -> None:
    own_engine.ask(protocol.ModelLoad(id=1, model=str(tiny_translator)))
    own_engine.process.send_signal(signal.SIGINT)
    assert own_engine.process.wait(60) == 130
    assert b"Traceback" not in own_engine.stderr


def test_prints_of_others_never_reach_the_protocol(start_engine: Any) -> None:
    code = """
import os, subprocess, sys
from tfm.core.engine import protocol, server

def chatty(request, emit, cancelled):
    print("print")
    os.write(1, b"raw write\\n")
    subprocess.run([sys.executable, "-c", "import sys; print('child', repr(sys.stdin.read()))"], check=True)
    emit(protocol.RunsListed(id=request.id, runs=()))

raise SystemExit(server.main({protocol.RunsList: chatty}))
"""
    engine = start_engine(code)
    only(engine.ask(protocol.RunsList(id=1)), protocol.RunsListed)  # decoding fails on anything else
    assert engine.end() == 0
    for text in (b"print", b"raw write", b"child ''"):
        assert text in engine.stderr


def test_services_run_beside_each_other_and_can_be_cancelled(start_engine: Any) -> None:
    code = """
import time
from tfm.core.engine import protocol, server

def follow(request, emit, cancelled):
    if request.run == "missing":
        raise ValueError("there is no run called missing")
    if request.run == "broken":
        raise KeyError("a bug")
    while not cancelled():
        emit(protocol.RunEvents(id=request.id, run=request.run, lines=("line",)))
        time.sleep(0.01)
    emit(protocol.RunEvents(id=request.id, run=request.run, lines=("last words",)))

raise SystemExit(server.main({protocol.RunFollow: follow}))
"""
    engine = start_engine(code)
    engine.send(protocol.RunFollow(id=1, run="a"), protocol.RunFollow(id=2, run="b"))
    seen: set[int] = set()
    while not {1, 2} <= seen:
        seen.add(engine.next().id)
    assert only(engine.ask(protocol.RunFollow(id=3, run="missing")), protocol.Error).kind == "bad_request"
    assert only(engine.ask(protocol.RunFollow(id=4, run="broken")), protocol.Error).kind == "internal"
    engine.send(protocol.RunFollow(id=2, run="again"))
    clash = next(event for event in iter(engine.next, None) if isinstance(event, protocol.Error))
    assert clash.id == 0 and "id of its own" in clash.message
    engine.send(protocol.Cancel(id=5, target=1))
    events = engine.until(1, 5)
    last = [event for event in events if event.id == 1][-1]
    assert isinstance(last, protocol.Done) and last.detail == {"cancelled": True}
    assert engine.end() == 0
    assert b"a bug" in engine.stderr


def test_what_cannot_be_pulled_is_a_sentence(start_engine: Any, tmp_path: Path) -> None:
    """No network is asked here: names that are refused before, and a name that is taken."""
    (tmp_path / "checkpoints" / "smollm2").mkdir(parents=True)
    home = f"import os; os.environ['TFM_HOME'] = {str(tmp_path)!r}"
    engine = start_engine(f"{home}; from tfm.core.engine.server import main; raise SystemExit(main())")
    for name in ("", "../up", ".hidden", "a\nb", "a/b/c", "smollm2"):
        error = engine.ask(protocol.ModelsPull(id=1, name=name))[-1]
        assert isinstance(error, protocol.Error) and error.kind == "bad_request", error
        assert ("already" if name == "smollm2" else "no name of a published model") in error.message
