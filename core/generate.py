"""Generation: lanes (prompt x settings x seed) decoded as one batch, a record for each token.

The loop is short: look whether to stop, take new settings, draw, give out, drop the lanes that have
ended, feed the rest. Lanes share nothing but the arithmetic: each has its own settings, noise, history,
text and length, so a lane writes the same alone and in any company.

Letters: B lanes that are going on, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import msgspec
import torch
from torch import Tensor

from tfm.core.chat import ChatPrompt, chat_prompt_ids
from tfm.core.checkpoint import Checkpoint
from tfm.core.engine.protocol import Candidate, Lane, StageReport
from tfm.core.kv_cache import KVCache
from tfm.core.lane_text import LaneText
from tfm.core.prefill import PrefixCache, Prompt, advance, begin, encode_prompts, prefill, writer
from tfm.core.sampling.chain import Draw, LaneState, sample
from tfm.core.sampling.settings import SamplingSettings
from tfm.core.tokenizer import Tokenizer

Reason = Literal["eos", "length", "stop", "cancelled"]
Tuner = Callable[[], dict[int, SamplingSettings] | None]


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """One token of one lane. Pieces of a lane, joined, are its text."""

    lane: int
    position: int  # index among the target tokens, the forced prefix included
    token: int
    piece: str  # text that became certain; may be empty, may belong to earlier tokens too
    logprob: float  # nats, under the model's raw distribution
    entropy: float  # nats, of the raw distribution
    probability: float  # final: after all stages
    top: tuple[Candidate, ...] = ()
    trace: tuple[StageReport, ...] = ()
    settings_mark: bool = False  # first token drawn under new settings
    settings: SamplingSettings | None = None  # where it is marked: those new settings


@dataclass(frozen=True, slots=True)
class LaneFinished:
    """A lane has ended. Text and tokens include the forced prefix; tokens include the one that ended it.

    Where a stop string ended it, the text stops in front of it. Text that was held back when a lane
    was cancelled is in ``text`` and in no piece.
    """

    lane: int
    reason: Reason
    text: str
    tokens: tuple[int, ...]
    logprob: float  # nats, raw, of the tokens drawn here
    n_prompt: int  # tokens of the source sentence, of the text continued or of the chat
    dropped_turns: tuple[int, ...] = ()  # messages of a chat that its context had no room for


def generate(
    checkpoint: Checkpoint,
    lanes: Sequence[Lane],
    *,
    max_tokens: int,
    stop: Sequence[str] = (),
    n_top: int = 5,
    trace: bool = False,
    tuner: Tuner | None = None,
    should_stop: Callable[[], bool] | None = None,
    prefix_cache: PrefixCache | None = None,
) -> Iterator[TokenEvent | LaneFinished]:
    """Decode all lanes as one batch until each has ended.

    Args:
        lanes: source sentences for an encoder-decoder; texts to continue, or chats to reply to, for a
            decoder-only model.
        max_tokens: tokens to draw for each lane at most; the forced prefix does not count.
        stop: texts that end a lane; they are not part of its text.
        n_top: candidates to report with each token, by raw probability.
        trace: report every stage of the chain with each token.
        tuner: asked before each step for new settings by lane; they act on the next token.
        should_stop: asked before each step; True ends all lanes as "cancelled".
        prefix_cache: where to look for, and leave, what need not be computed again.

    Raises:
        ValueError: at once, for lanes, stops or limits that make no sense; while it runs, for a
            bias on a token that does not exist or a model whose logits are not finite.
    """
    writer(checkpoint)
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, not {max_tokens}")
    for lane in lanes:
        lane.settings.check()
    lanes = [_with_begun_reply(checkpoint, lane) for lane in lanes]
    started = [
        _Lane(index, prompt, lane, LaneText(checkpoint.tokenizer, stop, lane.prefix), dropped)
        for index, (lane, (prompt, dropped)) in enumerate(
            zip(lanes, _prompts(checkpoint, lanes, max_tokens), strict=True)
        )
    ]
    batch = _Batch(checkpoint, started, max_tokens, n_top, trace, prefix_cache)
    return batch.run(tuner or (lambda: None), should_stop or (lambda: False))


def _prompts(
    checkpoint: Checkpoint, lanes: Sequence[Lane], max_tokens: int
) -> list[tuple[Prompt, tuple[int, ...]]]:
    """What each lane starts from, and which messages of a chat were left out for want of room."""
    names = ["the text" if len(lanes) == 1 else f"the text of lane {i}" for i in range(len(lanes))]
    plain = [index for index, lane in enumerate(lanes) if not lane.messages]
    encoded = encode_prompts(
        checkpoint,
        [lanes[index].prompt for index in plain],
        [names[index] for index in plain],
        [lanes[index].prefix for index in plain],
    )
    found: dict[int, tuple[Prompt, tuple[int, ...]]] = {
        index: (prompt, ()) for index, prompt in zip(plain, encoded, strict=True)
    }
    chats: list[tuple[Lane, ChatPrompt]] = []  # several replies to one chat are several lanes
    for index, lane in enumerate(lanes):
        if lane.messages:
            chat = next((chat for known, chat in chats if _same_chat(known, lane)), None)
            if chat is None:
                chat = chat_prompt_ids(checkpoint, lane.messages, max_tokens, len(lane.prefix))
                chats.append((lane, chat))
            prompt = begin(checkpoint, names[index], (), chat.ids, lane.prefix)
            found[index] = (prompt, chat.dropped_turns)
    return [found[index] for index in range(len(lanes))]


def _with_begun_reply(checkpoint: Checkpoint, lane: Lane) -> Lane:
    """A chat's reply that was begun in words becomes a forced prefix: its text and the spaces between
    it and what follows are then told like those of any other."""
    if not lane.messages or lane.messages[-1].get("role") != "assistant":
        return lane
    begun = checkpoint.tokenizer.encode(lane.messages[-1].get("content", ""))
    return msgspec.structs.replace(lane, messages=lane.messages[:-1], prefix=(*begun, *lane.prefix))


def _same_chat(one: Lane, other: Lane) -> bool:
    return one.messages == other.messages and len(one.prefix) == len(other.prefix)


class _Lane:
    """The state of a lane that is going on."""

    def __init__(
        self, index: int, prompt: Prompt, lane: Lane, text: LaneText, dropped_turns: tuple[int, ...]
    ) -> None:
        self.index, self.prompt, self.text = index, prompt, text
        self.dropped_turns = dropped_turns
        self.settings, self.seed = lane.settings, lane.seed
        self.tokens = list(lane.prefix)
        self.n_new = 0
        self.logprob = 0.0
        self.mu: float | None = None
        self.mark = False

    def history(self, start_id: int | None) -> list[int]:
        """What the penalties see: the decoder's side without the token it is started with."""
        skipped = 1 if start_id is not None else 0
        return [*self.prompt.ids[skipped:], *self.tokens[len(self.tokens) - self.n_new :]]

    @property
    def length(self) -> int:
        """Tokens on the decoder's side."""
        return len(self.prompt.ids) + self.n_new

    @property
    def fed(self) -> tuple[int, ...]:
        """All of them."""
        return (*self.prompt.ids, *self.tokens[len(self.tokens) - self.n_new :])

    def tune(self, settings: SamplingSettings) -> None:
        if settings == self.settings:
            return
        settings.check()
        if settings.mirostat_tau != self.settings.mirostat_tau:
            self.mu = None
        self.settings, self.mark = settings, True

    def take(self, draw: Draw) -> None:
        self.tokens.append(draw.token)
        self.n_new += 1
        self.logprob += draw.logprob
        self.mu, self.mark = draw.mu, False

    def finished(self, reason: Reason) -> LaneFinished:
        self.text.finish()
        n_prompt = len(self.prompt.source) or self.length - len(self.tokens)
        text, tokens = self.text.text, tuple(self.tokens)
        return LaneFinished(self.index, reason, text, tokens, self.logprob, n_prompt, self.dropped_turns)


@dataclass
class _Batch:
    """The lanes that are going on, in the order of their rows in the cache."""

    checkpoint: Checkpoint
    lanes: list[_Lane]
    max_tokens: int
    n_top: int
    trace: bool
    prefix_cache: PrefixCache | None
    pieces: dict[int, str] = field(default_factory=dict)

    def run(self, tuner: Tuner, should_stop: Callable[[], bool]) -> Iterator[TokenEvent | LaneFinished]:
        cache: KVCache | None = None
        drawn = [0]
        yield from self._drop_complete()
        while self.lanes:
            if should_stop():
                for row, lane in enumerate(self.lanes):
                    self._retain(lane, cache, row)
                    yield lane.finished("cancelled")
                return
            for index, settings in (tuner() or {}).items():
                for lane in self.lanes:
                    if lane.index == index:
                        lane.tune(settings)

            if cache is None:
                prompts = [lane.prompt for lane in self.lanes]
                cache, logits_BV = prefill(self.checkpoint, prompts, self.max_tokens, self.prefix_cache)
            else:
                logits_BV = advance(
                    self.checkpoint, cache, torch.tensor(drawn, device=self.checkpoint.device)
                )

            rows_left = []
            for row, (lane, draw) in enumerate(zip(self.lanes, self._draw(logits_BV), strict=True)):
                mark = lane.mark
                lane.take(draw)
                piece, reason = self._read(lane, draw.token)
                yield self._event(lane, draw, piece, mark)
                if reason is None:
                    rows_left.append(row)
                else:
                    self._retain(lane, cache, row)
                    yield lane.finished(reason)
            if 0 < len(rows_left) < len(self.lanes):
                cache = cache.select(rows_left)
            self.lanes = [self.lanes[row] for row in rows_left]
            drawn = [lane.tokens[-1] for lane in self.lanes]

    def _draw(self, logits_BV: Tensor) -> list[Draw]:
        start_id = self.checkpoint.config.start_id
        states = [
            LaneState(lane.settings, lane.seed, len(lane.tokens), lane.history(start_id), lane.mu)
            for lane in self.lanes
        ]
        return _sample(self.checkpoint.tokenizer, logits_BV, states, self.n_top, self.trace)

    def _read(self, lane: _Lane, token: int) -> tuple[str, Reason | None]:
        """The token's piece, with all that was held back if the lane ends here, and why it ends."""
        piece = lane.text.push(token)
        reason: Reason | None = None
        if token in self.checkpoint.config.stop_ids:
            reason = "eos"
        elif lane.text.stopped:
            reason = "stop"
        elif lane.n_new >= self.max_tokens or lane.length > self.checkpoint.config.max_positions:
            reason = "length"
        if reason is not None:
            piece += lane.text.finish()
        if lane.text.stopped and reason != "eos":  # what was held back completed a stop string
            reason = "stop"
        return piece, reason

    def _event(self, lane: _Lane, draw: Draw, piece: str, mark: bool) -> TokenEvent:
        return TokenEvent(
            lane=lane.index,
            position=len(lane.tokens) - 1,
            token=draw.token,
            piece=piece,
            logprob=draw.logprob,
            entropy=draw.entropy,
            probability=draw.probability,
            top=tuple(
                Candidate(
                    token=rival.token,
                    piece=self._piece(rival.token),
                    raw=rival.raw,
                    final=rival.final,
                    removed_by=rival.removed_by,
                )
                for rival in draw.top
            ),
            trace=tuple(
                StageReport(
                    stage=effect.stage,
                    left=effect.left,
                    mass=effect.mass,
                    entropy_before=effect.entropy_before,
                    entropy_after=effect.entropy_after,
                    removed=tuple(map(self._piece, effect.removed)),
                )
                for effect in draw.trace
            ),
            settings_mark=mark,
            settings=lane.settings if mark else None,
        )

    def _piece(self, token: int) -> str:
        if token not in self.pieces:
            self.pieces[token] = self.checkpoint.tokenizer.piece(token)
        return self.pieces[token]

    def _drop_complete(self) -> Iterator[LaneFinished]:
        """Lanes whose forced prefix leaves nothing to draw."""
        for lane in list(self.lanes):
            if lane.tokens and lane.tokens[-1] in self.checkpoint.config.stop_ids:
                self.lanes.remove(lane)
                yield lane.finished("eos")

    def _retain(self, lane: _Lane, cache: KVCache | None, row: int) -> None:
        if self.prefix_cache is not None and cache is not None:  # the last token drawn was never fed
            self.prefix_cache.store(lane.prompt.source, lane.fed[:-1], cache.select([row]))


@torch.inference_mode()
def _sample(
    tokenizer: Tokenizer, logits_BV: Tensor, states: Sequence[LaneState], n_top: int, trace: bool
) -> list[Draw]:
    def breakers(strings: tuple[str, ...]) -> Collection[int]:
        return _tokens_with(tokenizer, strings)

    return sample(logits_BV, states, n_top=n_top, trace=trace, breakers=breakers)


@lru_cache(maxsize=8)
def _tokens_with(tokenizer: Tokenizer, strings: tuple[str, ...]) -> frozenset[int]:
    """Ids of the tokens in whose text one of the strings occurs."""
    texts = ((token, tokenizer.decode([token])) for token in range(tokenizer.vocab_size))
    return frozenset(token for token, text in texts if any(string in text for string in strings))
