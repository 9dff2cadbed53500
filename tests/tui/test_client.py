"""The door to the engine, against a real engine process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tfm.core.engine import protocol
from tfm.core.sampling.settings import PRESETS
from tfm.tui.client import EngineClient, EngineLost, Refused


@pytest_asyncio.fixture
async def client(tmp_path: Path) -> AsyncIterator[EngineClient]:
    client = EngineClient(environment={"TFM_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"})
    yield client
    await client.close()


def generate(model: Path, sentences: int = 1, max_tokens: int = 20) -> protocol.Generate:
    lane = protocol.Lane(prompt="A man in a blue shirt.", settings=PRESETS["greedy"])
    return protocol.Generate(id=0, model=str(model), lanes=(lane,) * sentences, max_tokens=max_tokens)


async def test_a_translation_comes_token_by_token(client: EngineClient, tiny_translator: Path) -> None:
    loaded = await client.ask(protocol.ModelLoad(id=0, model=str(tiny_translator)), protocol.ModelLoaded)
    assert loaded.info.languages == ("English", "German")
    events = [event async for event in await client.request(generate(tiny_translator))]
    tokens = [event for event in events if isinstance(event, protocol.Token)]
    done = next(event for event in events if isinstance(event, protocol.LaneDone))
    assert isinstance(events[-1], protocol.Done)
    assert "".join(token.piece for token in tokens) == done.text
    assert tuple(token.token for token in tokens) == done.tokens
    assert all(len(token.top) == 5 for token in tokens)


async def test_requests_run_side_by_side(client: EngineClient, tiny_translator: Path) -> None:
    async def text(sentences: int) -> list[str]:
        stream = await client.request(generate(tiny_translator, sentences))
        return [event.text async for event in stream if isinstance(event, protocol.LaneDone)]

    one, two, listed = await asyncio.gather(
        text(1), text(2), client.ask(protocol.ModelsList(id=0), protocol.ModelsListed)
    )
    assert two == one * 2
    assert isinstance(listed, protocol.ModelsListed)


async def test_cancel_keeps_what_came(client: EngineClient, tiny_translator: Path) -> None:
    stream = await client.request(generate(tiny_translator, sentences=8, max_tokens=120))
    reasons, n_tokens = [], 0
    async for event in stream:
        if isinstance(event, protocol.Token):
            n_tokens += 1
            if n_tokens == 8:
                await stream.cancel()
        elif isinstance(event, protocol.LaneDone):
            reasons.append(event.reason)
    assert stream.ended
    assert 8 <= n_tokens < 8 * 120
    assert set(reasons) <= {"cancelled", "eos"}


async def test_a_refusal_is_a_sentence_and_the_engine_lives(
    client: EngineClient, tiny_translator: Path
) -> None:
    with pytest.raises(Refused) as refused:
        await client.ask(protocol.ModelLoad(id=0, model="no-such-model"), protocol.ModelLoaded)
    assert "no-such-model" in str(refused.value)
    assert refused.value.kind in ("not_found", "bad_request")
    assert client.welcome is not None
    await client.ask(protocol.ModelLoad(id=0, model=str(tiny_translator)), protocol.ModelLoaded)
    assert client.starts == 1


async def test_a_killed_engine_is_told_and_started_again(client: EngineClient, tiny_translator: Path) -> None:
    stream = await client.request(generate(tiny_translator, sentences=8, max_tokens=120))
    assert client.welcome is not None
    with pytest.raises(EngineLost, match="SIGKILL"):
        async for event in stream:
            if isinstance(event, protocol.Token):
                os.kill(client.welcome.pid if client.welcome else 0, signal.SIGKILL)
                break
        async for _ in stream:
            pass
    assert client.welcome is None
    events = [event async for event in await client.request(generate(tiny_translator))]
    assert isinstance(events[-1], protocol.Done)
    assert client.starts == 2


async def test_no_such_command() -> None:
    with pytest.raises(EngineLost, match="no-such-engine"):
        await EngineClient(["/no-such-engine"]).start()


async def test_a_command_that_ends_at_once_leaves_its_last_words() -> None:
    script = "import sys; print('Permission denied (publickey).', file=sys.stderr); sys.exit(255)"
    with pytest.raises(EngineLost, match=r"status 255.*Permission denied"):
        await EngineClient([sys.executable, "-c", script]).start()


async def test_another_version_is_named() -> None:
    welcome = protocol.Welcome(id=1, version=99, app_version="9", device="cpu", host="box", pid=1, threads=1)
    line = protocol.encode(welcome).decode().strip()
    script = f"import sys; print('Last login: Monday'); print({line!r}, flush=True); sys.stdin.read()"
    client = EngineClient([sys.executable, "-c", script])
    with pytest.raises(EngineLost, match="box speaks protocol 99"):
        await client.start()
    assert "Last login: Monday" in client.log  # a banner is no event, and is no error either


async def test_the_engine_ends_with_the_client(client: EngineClient) -> None:
    await client.start()
    assert client.welcome is not None
    pid = client.welcome.pid
    await client.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_the_last_words_are_waited_for() -> None:
    """ssh's own reason may be read after its end; a sentence without it would say nothing."""
    late = "(sleep 0.1; echo Connection refused >&2) >/dev/null & exit 3"
    client = EngineClient(("sh", "-c", late))
    with pytest.raises(EngineLost, match=r"status 3.*Its last words: Connection refused"):
        await client.start()
    await client.close()
