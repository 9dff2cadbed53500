"""A translation that is stopped and gone on with is the one that it would have been."""

from __future__ import annotations

from pathlib import Path

import msgspec

from tfm.core.engine import protocol
from tfm.core.sampling.settings import NEUTRAL
from tfm.tui.client import EngineClient
from tfm.tui.exchange import Exchange
from tfm.tui.widgets.sampling_panel import Decoding

TEXT = "A man in a boat.\n\nTwo men setting up a hut.\nA boy."


async def written(
    client: EngineClient, exchange: Exchange, request: protocol.Request, stop_after: int = 0
) -> None:
    stream = await client.request(request)
    async for event in stream:
        exchange.apply(event)
        if exchange.n_tokens == stop_after:
            await stream.cancel()


async def test_it_goes_on_from_its_tokens(tiny_translator: Path, tmp_path: Path) -> None:
    client = EngineClient(environment={"TFM_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"})
    load = protocol.ModelLoad(id=0, model=str(tiny_translator))
    model = await client.ask(load, protocol.ModelLoaded)
    decoding = Decoding(settings=NEUTRAL, seed=5)
    whole = Exchange(TEXT, decoding)
    assert whole.unfinished == []  # it was not even begun
    await written(client, whole, whole.request(model))
    assert whole.unfinished == [] and whole.ended

    cut = Exchange(TEXT, decoding)
    await written(client, cut, cut.request(model), stop_after=9)
    assert cut.cancelled and cut.unfinished
    # The app ends there, and is opened again: what was not done is known from the file.
    cut = msgspec.json.decode(msgspec.json.encode(cut), type=Exchange)
    assert cut.unfinished
    await written(client, cut, cut.go_on(model))
    assert cut.text == whole.text
    assert cut.unfinished == [] and not cut.cancelled
    assert [[t.token for t in line] for line in cut.tokens] == [
        [t.token for t in line] for line in whole.tokens
    ]
    await client.close()
