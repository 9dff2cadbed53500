"""Chats through a real engine process: replies, what was left out, templates that would be its end."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tfm.core.chat import DIALOGUE_TEMPLATE, TEMPLATE_FILE, chat_prompt_ids
from tfm.core.checkpoint import load_checkpoint
from tfm.core.engine.protocol import Done, Error, Generate, Lane, LaneDone, Resample
from tfm.core.sampling.settings import SamplingSettings

Engine = Any  # tests/core/engine/conftest.py: EngineProcess

GREEDY = SamplingSettings(temperature=0.0, banned=(2,))
LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
GREEDY_FOR_MEMORY = (
    "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}"
)


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def chatty(tiny_decoder: Path, folder: Path, template: str) -> str:
    shutil.copytree(tiny_decoder, folder)
    (folder / TEMPLATE_FILE).write_text(template)
    return str(folder)


def test_replies(engine: Engine, tiny_decoder: Path, tmp_path: Path) -> None:
    model = chatty(tiny_decoder, tmp_path / "chatty", DIALOGUE_TEMPLATE)
    messages = [turn("user", "A man"), turn("assistant", "Two men </s>"), turn("user", "A boy")]
    lane = Lane(prompt="", messages=tuple(messages), settings=GREEDY)
    events = engine.ask(Generate(id=1, model=model, lanes=(lane, lane), max_tokens=6))
    one, two = (event for event in events if isinstance(event, LaneDone))
    assert one.tokens == two.tokens and one.dropped_turns == ()
    assert one.n_prompt == len(chat_prompt_ids(load_checkpoint(model), messages, 6).ids)

    kept = Lane(prompt="", messages=tuple(messages), settings=GREEDY, prefix=one.tokens)
    events = engine.ask(Resample(id=2, model=model, lane=kept, keep=2, max_tokens=4))
    [again] = [event for event in events if isinstance(event, LaneDone)]
    assert again.tokens == one.tokens, "a reply goes on as it would have gone"

    long = Lane(prompt="", messages=tuple(messages[:2] * 20 + messages[2:]), settings=GREEDY)
    events = engine.ask(Generate(id=3, model=model, lanes=(long,), max_tokens=6))
    [cut] = [event for event in events if isinstance(event, LaneDone)]
    assert cut.dropped_turns == tuple(range(len(cut.dropped_turns))) != ()
    assert cut.n_prompt + 6 <= 128


def test_hostile_templates_are_sentences_and_the_engine_lives(
    engine: Engine, tiny_decoder: Path, tmp_path: Path
) -> None:
    lane = Lane(prompt="", messages=(turn("user", "A man"),), settings=GREEDY)
    for number, (template, sentence) in enumerate([
        (LOOP, "takes longer than 5 s; it may loop for ever"),
        (GREEDY_FOR_MEMORY, "needs more memory than a template may have"),
        ("{{ raise_exception('not\nyou') }}", "says: not you"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ]):  # fmt: skip
        model = chatty(tiny_decoder, tmp_path / f"hostile-{number}", template)
        *_, last = engine.ask(Generate(id=number + 1, model=model, lanes=(lane,), max_tokens=3))
        assert isinstance(last, Error) and last.kind == "bad_request"
        assert f"the chat template of hostile-{number}" in last.message and sentence in last.message
    model = chatty(tiny_decoder, tmp_path / "kind", DIALOGUE_TEMPLATE)
    *_, last = engine.ask(Generate(id=9, model=model, lanes=(lane,), max_tokens=3))
    assert isinstance(last, Done)
    *_, last = engine.ask(Generate(id=10, model=str(tiny_decoder), lanes=(lane,), max_tokens=3))
    assert isinstance(last, Error) and "has no chat template" in last.message
