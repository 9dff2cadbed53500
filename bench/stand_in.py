"""A stand-in for the engine: it speaks the real protocol on its stdin and stdout and writes made-up
tokens at a set rate, whatever this machine can compute. It shows what the app does with a GPU's rate.

    python -m bench.stand_in --rate 5000 --load-seconds 1.0

``--rate`` is in tokens a second over all lanes. A generation goes on until it is cancelled or has
``--tokens`` a lane.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import threading
import time
from itertools import count

from tfm.core.engine import protocol
from tfm.core.engine.wire import LineTooLong, Outbox, read_lines

STEP = 1 / 200  # seconds: tokens that are due within one come together, as a GPU's steps do
WORDS = ("der", "eine", "mann", "im", "blauen", "hemd", "steht", "auf", "leiter", "putzt", "das", "fenster")
NAME = "stand-in"


class StandIn:
    """Answers what the app asks while it translates; anything else is refused."""

    def __init__(self, rate: float, tokens: int, load_seconds: float) -> None:
        self.rate, self.tokens, self.load_seconds = rate, tokens, load_seconds
        self._outbox = Outbox(sys.stdout.buffer, on_broken=lambda: os._exit(0))
        self._cancelled: set[int] = set()

    def serve(self) -> None:
        for line in read_lines(sys.stdin.buffer):
            if not isinstance(line, LineTooLong):
                self._answer(protocol.decode_request(line))

    def _answer(self, request: protocol.AnyRequest) -> None:
        send, done = self._outbox.send, protocol.Done(id=request.id)
        match request:
            case protocol.Hello():
                send([self._welcome(request.id)])
            case protocol.ModelsList():
                send([protocol.ModelsListed(id=request.id, models=(_info(),)), done])
            case protocol.ModelLoad():
                threading.Thread(target=self._load, args=(request,), daemon=True).start()
            case protocol.Generate():
                threading.Thread(target=self._generate, args=(request,), daemon=True).start()
            case protocol.Cancel():
                self._cancelled.add(request.target)
                send([done])
            case protocol.Tune():
                send([done])
            case protocol.Shutdown():
                os._exit(0)
            case _:
                message = f"the stand-in does not do {type(request).__name__}"
                send([protocol.Error(id=request.id, kind="unsupported", message=message)])

    def _welcome(self, request_id: int) -> protocol.Welcome:
        return protocol.Welcome(
            id=request_id, version=protocol.PROTOCOL_VERSION, app_version="bench", device="none (stand-in)",
            host="localhost", pid=os.getpid(), threads=1,
        )  # fmt: skip

    def _load(self, request: protocol.ModelLoad) -> None:
        for tenth in range(10):
            self._outbox.send([protocol.LoadProgress(id=request.id, fraction=tenth / 10, stage="reading")])
            time.sleep(self.load_seconds / 10)
        loaded = protocol.ModelLoaded(
            id=request.id, info=_info(), device="none", precision="fp32", seconds=self.load_seconds
        )
        self._outbox.send([loaded, protocol.Done(id=request.id, seconds=self.load_seconds)])

    def _generate(self, request: protocol.Generate) -> None:
        """All lanes in step, and as many steps as are due by the clock."""
        began, sent = time.monotonic(), 0
        lanes = range(len(request.lanes))
        texts: list[list[str]] = [[] for _ in lanes]
        draw = random.Random(1)
        for position in count():
            due = began + position * len(lanes) / self.rate
            while (left := due - time.monotonic()) > 0 and request.id not in self._cancelled:
                time.sleep(min(left, STEP))
            if request.id in self._cancelled or position == self.tokens:
                break
            events = [_token(request.id, lane, position, draw) for lane in lanes]
            for event in events:
                texts[event.lane].append(event.piece)
            sent += len(events)
            self._outbox.send(events)
        reason = "cancelled" if request.id in self._cancelled else "length"
        ends = [
            protocol.LaneDone(
                id=request.id, lane=lane, reason=reason, text="".join(texts[lane]),
                tokens=tuple(range(len(texts[lane]))), logprob=-1.0,
            )
            for lane in lanes
        ]  # fmt: skip
        seconds = time.monotonic() - began
        rate = sent / max(seconds, 1e-9)
        self._outbox.send(
            [*ends, protocol.Done(id=request.id, seconds=seconds, n_tokens=sent, tokens_per_second=rate)]
        )


def _token(request_id: int, lane: int, position: int, draw: random.Random) -> protocol.Token:
    """With as much beside it as a real one has: five rivals, their chances, who removed them."""
    chances = sorted((draw.random() for _ in range(5)), reverse=True)
    whole = sum(chances)
    pieces = [f" {draw.choice(WORDS)}" for _ in chances]
    top = tuple(
        protocol.Candidate(
            token=draw.randrange(6000), piece=piece, raw=chance / whole,
            final=chance / whole if n < 3 else 0.0, removed_by="" if n < 3 else "top_p",
        )
        for n, (piece, chance) in enumerate(zip(pieces, chances, strict=True))
    )  # fmt: skip
    return protocol.Token(
        id=request_id, lane=lane, position=position, token=top[0].token, piece=pieces[0],
        logprob=-draw.random() * 3, entropy=draw.random() * 2, probability=top[0].final, top=top,
    )  # fmt: skip


def _info() -> protocol.ModelInfo:
    return protocol.ModelInfo(
        name=NAME, path="", family="encoder-decoder", n_parameters=0, vocab_size=6000, max_positions=100_000,
        size_bytes=0, summary="made-up tokens at a set rate", languages=("English", "German"),
    )  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    options.add_argument("--rate", type=float, default=5000.0)
    options.add_argument("--tokens", type=int, default=1 << 30)
    options.add_argument("--load-seconds", type=float, default=0.2)
    given = options.parse_args()
    StandIn(given.rate, given.tokens, given.load_seconds).serve()


if __name__ == "__main__":
    main()
