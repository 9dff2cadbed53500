"""The engine on another machine, through a real sshd: what is said when it cannot be reached."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tfm.core.engine import protocol
from tfm.tui.client import EngineClient, EngineLost
from tfm.tui.remote import Box

from .loopback import Loopback, box_or_skip
from .test_client import generate


@pytest.fixture
def loopback(tmp_path: Path) -> Iterator[Loopback]:
    there = box_or_skip(tmp_path)
    there.start()
    yield there
    there.stop()


async def said(box: Box) -> EngineLost:
    """What a request is told where there is no engine."""
    client = EngineClient(box=box)
    with pytest.raises(EngineLost) as problem:
        await client.start()
    assert client.welcome is None
    await client.close()
    assert "\n" not in str(problem.value)
    return problem.value


async def test_tokens_come_from_there_and_nothing_is_left(loopback: Loopback, tiny_translator: Path) -> None:
    client = EngineClient(box=Box("box", ssh=loopback.ssh))
    events = [event async for event in await client.request(generate(tiny_translator))]
    assert sum(isinstance(event, protocol.Token) for event in events) > 3
    runs = await client.ask(protocol.RunsList(id=0), protocol.RunsListed)
    assert runs.runs == ()
    (engine,) = loopback.engines()
    assert engine.environ()["TFM_HOME"] == str(loopback.home)
    await client.close()
    engine.wait(10)


async def test_a_connection_that_breaks_is_taken_up_again(loopback: Loopback, tiny_translator: Path) -> None:
    states: list[str] = []
    client = EngineClient(box=Box("box", ssh=loopback.ssh), on_change=states.append)
    stream = await client.request(generate(tiny_translator, sentences=8, max_tokens=120))
    with pytest.raises(EngineLost, match="connection to box was lost"):
        async for event in stream:
            if isinstance(event, protocol.Token):
                loopback.cut()
                break
        async for _ in stream:
            pass
    while client.welcome is None:  # by itself
        await asyncio.sleep(0.01)
    assert client.starts == 2 and client.pause == 0
    assert states[-4:] == ["lost", "waiting", "starting", "ready"]
    await client.ask(protocol.RunsList(id=0), protocol.RunsListed)
    await client.close()


async def test_the_next_request_does_not_wait_for_the_next_try(loopback: Loopback) -> None:
    client = EngineClient(box=Box("box", ssh=loopback.ssh))
    await client.start()
    loopback.stop()
    while client.pause < 2:  # one try has failed
        await asyncio.sleep(0.01)
    loopback.start()
    await client.start()
    assert client.starts == 2 and client.pause == 0
    await client.close()


async def test_an_engine_that_dies_over_there_is_started_again(loopback: Loopback) -> None:
    client = EngineClient(box=Box("box", ssh=loopback.ssh))
    await client.start()
    loopback.engines()[0].send_signal(signal.SIGKILL)
    while client.starts == 1:
        await asyncio.sleep(0.01)
    await client.ask(protocol.RunsList(id=0), protocol.RunsListed)
    await client.close()


async def test_who_cannot_be_reached_is_said_in_one_sentence(loopback: Loopback) -> None:
    problem = await said(Box("nowhere", ssh=loopback.ssh))
    assert "ssh knows no machine nowhere" in str(problem) and problem.kind == "set-up"
    loopback.stop()
    problem = await said(Box("box", ssh=loopback.ssh))
    assert "box takes no ssh connections" in str(problem) and problem.kind == "lost"


async def test_a_person_is_needed_where_the_key_is_refused(loopback: Loopback) -> None:
    (loopback.folder / "authorized_keys").write_text("")
    problem = await said(Box("box", ssh=loopback.ssh))
    assert "box lets nobody in" in str(problem) and "ssh-add" in str(problem)
    assert problem.kind == "person"


async def test_a_person_is_needed_where_the_host_key_is_new_and_warned_where_it_changed(
    loopback: Loopback,
) -> None:
    known = loopback.folder / "known_hosts"
    before = known.read_text()
    known.write_text("")
    problem = await said(Box("box", ssh=loopback.ssh))
    assert "has not met box" in str(problem) and problem.kind == "person"
    other = (loopback.folder / "id.pub").read_text().split()[:2]
    known.write_text(f"{before.split()[0]} {' '.join(other)}\n")
    problem = await said(Box("box", ssh=loopback.ssh))
    assert "another host key" in str(problem) and problem.kind == "set-up"


async def test_the_program_is_found_in_the_usual_places_or_named(loopback: Loopback) -> None:
    found = loopback.bin / "tfm-tui"
    hidden = loopback.folder / "venv" / "bin" / "tfm-tui"
    hidden.parent.mkdir(parents=True)
    found.rename(hidden)
    problem = await said(Box("box", ssh=loopback.ssh))
    assert "no tfm-tui on box" in str(problem) and "--remote-command" in str(problem)
    problem = await said(Box("box", "/opt/tfm tui/it", ssh=loopback.ssh))
    assert "--remote-command" in str(problem)
    for place in (".venv/bin", ".profile's PATH", ""):
        box = Box("box", "" if place else f"cd {hidden.parent} && ./tfm-tui", ssh=loopback.ssh)
        if place == ".venv/bin":
            (loopback.home / ".venv").symlink_to(hidden.parents[1])
        elif place:
            (loopback.home / ".venv").unlink()
            (loopback.home / ".profile").write_text(f"echo Welcome\nPATH=$PATH:{hidden.parent}\n")
        client = EngineClient(box=box)
        await client.start()
        await client.close()


async def test_another_version_over_there_is_named(loopback: Loopback) -> None:
    error = protocol.Error(id=1, kind="unsupported", message="the app speaks protocol 1 and this engine 99")
    loopback.install(
        "tfm-tui", f"echo 'Last login: Monday'; echo '{protocol.encode(error).decode().strip()}'; cat"
    )
    assert "this engine 99" in str(await said(Box("box", ssh=loopback.ssh)))
    welcome = protocol.Welcome(id=1, version=99, app_version="9", device="", host="box", pid=1, threads=1)
    loopback.install("tfm-tui", f"echo '{protocol.encode(welcome).decode().strip()}'; cat")
    assert "speaks protocol 99" in str(await said(Box("box", ssh=loopback.ssh)))
    loopback.install("tfm-tui", "echo 'tfm-tui: there is no command engine' >&2; exit 2")
    assert "there is no command engine" in str(await said(Box("box", ssh=loopback.ssh)))


@pytest.mark.slow  # 15 seconds of silence
async def test_a_link_that_falls_silent_is_noticed(loopback: Loopback) -> None:
    client = EngineClient(box=Box("box", ssh=loopback.ssh))
    await client.start()
    loopback.cut_silently()
    with pytest.raises(EngineLost, match="nothing came from there for 15 seconds"):
        await client.ask(protocol.RunsList(id=0), protocol.RunsListed)
    await client.close()


def test_names_that_are_none_are_refused() -> None:
    for name in ("", "-oProxyCommand=evil", "a b", "a\nb", "box\x1b[2J"):
        with pytest.raises(ValueError, match="USER@BOX"):
            Box(name)
    with pytest.raises(ValueError, match="no such-ssh"):
        Box("box", ssh="such-ssh")
