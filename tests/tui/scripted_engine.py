"""An engine that always says the same: pictures of screens are compared with it, and nothing else is.

It speaks the real protocol on stdin and stdout. Figures that a real one would measure are fixed.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator

import msgspec

from tfm.core.engine import protocol
from tfm.core.engine.protocol import Candidate, ModelInfo, StageReport
from tfm.core.engine.wire import LineTooLong, Outbox, read_lines
from tfm.train import events

GERMAN = ("Ein", " Mann", " in", " einem", " blauen", " Hemd", " steht", " auf", " einer", " Leiter", ".")
REPLY = (
    "I",
    " like",
    " rainy",
    " days",
    ",",
    " too",
    ":",
    " they",
    " smell",
    " of",
    " 비",
    " and",
    " earth",
    ".",
)
RUN = "captions-1124"


def info(name: str, family: str, **more: object) -> ModelInfo:
    fields = {
        "name": name, "path": f"/models/{name}", "family": family, "n_parameters": 2_093_568,
        "vocab_size": 6000, "max_positions": 512, "size_bytes": 4_206_144, "source": "bundled", **more,
    }  # fmt: skip
    return msgspec.convert(fields, ModelInfo)


MODELS = (
    info("en-de", "encoder-decoder", languages=("English", "German"), scores={"bleu": 39.0, "chrf": 63.22},
         summary="picture captions from English to German"),
    info("chitchat-en", "decoder-only", chat=True, scores={"perplexity": 74.9}, n_parameters=5_341_440,
         summary="a small model for small talk"),
    info("captions-mlm", "encoder-only", scores={"accuracy": 0.429}, summary="fills gaps in captions"),
    info("broken", "encoder-decoder", source="local", problem="model.safetensors is damaged"),
)  # fmt: skip


def answers(request: protocol.AnyRequest) -> Iterator[protocol.Event]:
    """All that a request is answered with, its end included."""
    number = request.id
    match request:
        case protocol.Hello():
            yield protocol.Welcome(
                id=number, version=protocol.PROTOCOL_VERSION, app_version="0", device="cpu", host="box",
                pid=1, threads=2,
            )  # fmt: skip
            return
        case protocol.ModelsList():
            yield protocol.ModelsListed(id=number, models=MODELS)
        case protocol.ModelsCard():
            found = _model(request.model)
            yield protocol.ModelCard(
                id=number, info=found, card=f"# {found.name}: {found.summary}\n\nA card.\n",
                config={"family": found.family, "d_model": 128}, files={"model.safetensors": 4_206_144},
            )  # fmt: skip
        case protocol.ModelLoad():
            yield protocol.ModelLoaded(
                id=number, info=_model(request.model), device="cpu", precision="fp32", seconds=0.5
            )
        case protocol.Generate():
            yield from _generated(request)
        case protocol.Score():
            yield _scored(request)
        case protocol.Tokenize():
            texts = tuple(tuple(_word(word) for word in text.split()) for text in request.texts)
            yield protocol.Tokenized(id=number, texts=texts, ids=())
        case protocol.Fill():
            yield _filled(request)
        case protocol.RunsList():
            run = protocol.RunInfo(
                run=RUN, path=f"/runs/{RUN}", state="running", step=400, total_steps=1000, owner="box:7",
                best={"bleu": 31.5},
            )  # fmt: skip
            yield protocol.RunsListed(id=number, runs=(run,))
        case protocol.RunFollow():
            yield protocol.RunEvents(id=number, run=RUN, lines=tuple(_log()))
            return  # it goes on
        case protocol.RunStats():
            yield protocol.Box(id=number, cpu_percent=50.0, memory_used=2 << 30, memory_total=8 << 30)
        case protocol.BoxStats():
            yield protocol.Box(id=number, cpu_percent=50.0, memory_used=2 << 30, memory_total=8 << 30)
        case protocol.Cancel() | protocol.Tune():
            pass
        case protocol.Shutdown():
            os._exit(0)
        case _:
            message = f"the script has no {type(request).__name__}"
            yield protocol.Error(id=number, kind="unsupported", message=message)
            return
    yield protocol.Done(id=number, seconds=0.1, n_tokens=11, tokens_per_second=110.0)


def _model(name: str) -> ModelInfo:
    return next(model for model in MODELS if name in (model.name, model.path))


def _rivals(piece: str) -> tuple[Candidate, ...]:
    return (
        Candidate(token=1, piece=piece, raw=0.7, final=0.8),
        Candidate(token=2, piece=" eine", raw=0.15, final=0.2),
        Candidate(token=3, piece=" der", raw=0.05, final=0.0, removed_by="top_p"),
    )


def _generated(request: protocol.Generate) -> Iterator[protocol.Event]:
    pieces = REPLY if request.lanes[0].messages else GERMAN
    pieces = pieces[: request.max_tokens]
    trace = (
        StageReport(stage="raw", left=6000, mass=1.0, entropy_before=1.2, entropy_after=1.2),
        StageReport(
            stage="top_p", left=2, mass=0.9, entropy_before=1.2, entropy_after=0.5, removed=(" der",)
        ),
    )
    for position, piece in enumerate(pieces):
        chance = (0.95, 0.5, 0.2, 0.04)[position % 4]
        yield protocol.Token(
            id=request.id, lane=0, position=position, token=position + 5, piece=piece,
            logprob=math.log(chance), entropy=1.2, probability=chance, top=_rivals(piece),
            trace=trace if request.trace else (),
        )  # fmt: skip
    yield protocol.LaneDone(
        id=request.id, lane=0, reason="eos", text="".join(pieces), tokens=tuple(range(5, 5 + len(pieces))),
        logprob=-9.5, n_prompt=12,
    )  # fmt: skip


def _word(word: str) -> protocol.VocabularyToken:
    return protocol.VocabularyToken(token=len(word), piece=f" {word}")


def _scored(request: protocol.Score) -> protocol.Scored:
    tokens = tuple(
        protocol.ScoredToken(
            token=len(word), piece=f" {word}", logprob=-0.4 * (n % 5), entropy=0.3 * (n % 4), rank=1 + n % 3
        )
        for n, word in enumerate(request.text.split())
    )
    return protocol.Scored(id=request.id, tokens=tokens, logprob=-8.0, perplexity=2.2)


def _filled(request: protocol.Fill) -> protocol.Filled:
    words = ((" shirt", " jacket", " hat"), (" ladder", " roof", " chair"))
    masks = tuple(
        protocol.MaskFill(
            position=n, entropy=1.1,
            candidates=tuple(
                Candidate(token=i, piece=piece, raw=0.6 / (i + 1), final=0.7 / (i + 1))
                for i, piece in enumerate(words[n % 2])
            ),
        )
        for n in range(request.text.count("[MASK]"))
    )  # fmt: skip
    return protocol.Filled(id=request.id, pieces=(), masks=masks)


def _log() -> Iterator[str]:
    """A run in its middle, two seconds a report."""
    told: list[events.TrainEvent] = [
        events.RunStarted(
            run=RUN, objective="translation", n_parameters=2_093_568, total_steps=1000, steps_per_epoch=100,
            device="cpu, 2 threads", precision="fp32",
        )
    ]  # fmt: skip
    for step in range(20, 401, 20):
        loss = 2.0 + 6.0 * math.exp(-step / 120)
        told.append(
            events.Step(
                step=step, epoch=step / 100, loss=loss, nll=loss - 0.3,
                accuracy=0.7 - 0.6 * math.exp(-step / 150), grad_norm=0.6, learning_rate=1e-3,
                tokens=step * 3500, tokens_per_second=7100.0, seconds=step / 10,
            )
        )  # fmt: skip
        if step % 100 == 0:
            bleu = 35.0 * (1 - math.exp(-step / 200))
            told.append(
                events.Evaluated(
                    step=step, loss=loss + 0.1, perplexity=math.exp(loss - 0.2), accuracy=0.6, bleu=bleu,
                    chrf=bleu + 22, cer=0.5, wer=0.6, best=True, seconds=1.5,
                )
            )  # fmt: skip
            pair = events.Sample(
                source="two dogs run .",
                reference="zwei hunde rennen .",
                output=f"zwei hunde {'rennen' if step > 200 else 'gehen'} .",
            )
            told.append(events.Samples(step=step, samples=(pair,)))
    told.append(events.CheckpointSaved(step=400, path="step-000400", reason="interval"))
    for seq, event in enumerate(told):
        stamped = msgspec.structs.replace(event, seq=seq, time=1_700_000_000.0 + 2 * seq)
        yield events.encode(stamped).decode().strip()


def main() -> None:
    outbox = Outbox(sys.stdout.buffer, on_broken=lambda: os._exit(0))
    for line in read_lines(sys.stdin.buffer):
        if not isinstance(line, LineTooLong):
            outbox.send(answers(protocol.decode_request(line)))


if __name__ == "__main__":
    main()
