"""The messages between the app and the engine: one JSON object a line, typed by ``op`` / ``event``.

Requests go down (stdin of the engine), events come up (stdout). Every event carries the ``id`` of
the request it answers; ``id`` 0 is the engine speaking for itself. Nothing here imports torch.

The order of things, for whoever writes another client:

- ``hello`` is answered by one ``welcome`` at once. If torch is not loaded by then, its ``device`` is
  empty, and a second ``welcome`` with ``id`` 0 names the device as soon as it is known. Nothing needs
  to wait for it.
- Every other request is closed by exactly one ``done`` or ``error`` with its id, after whatever
  else it answers (``models``, ``token``, ``lane.done``, ...). Nothing with that id follows.
- ``cancel`` and ``tune`` are seen between two steps of a running request and closed by a ``done``
  whose ``detail`` is ``{"found": bool}``: a target that has just ended is no error. A cancelled
  ``generate``, ``resample`` or ``beam`` still sends a ``lane.done`` (reason ``cancelled``) for each
  lane that was going on; a cancelled request is closed by ``done`` with ``{"cancelled": true}``.
- A ``model`` that is not loaded yet is loaded when a request names it; ``model.load`` does it ahead
  of time, with progress. Cancelled, it stops between two tensors and keeps nothing.
- A line that is no request is answered by an ``error`` with its id where it has one, else ``id`` 0.
- End of input is ``shutdown``.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tfm.core.sampling.settings import NEUTRAL, SamplingSettings

PROTOCOL_VERSION = 1
Precision = Literal["auto", "fp32", "bf16", "int8", "int4"]


# --------------------------------------------------------------------------- shared records
# What comes by the ten thousand is made with gc=False: it holds no cycles, and a garbage collector that goes
# through all of it at each of its rounds holds up the screen for a tenth of a second.
class Lane(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence to generate: a prompt, settings and a seed."""

    prompt: str  # source sentence (encoder-decoder) or text to continue (decoder-only)
    settings: SamplingSettings = NEUTRAL
    seed: int = 0
    prefix: tuple[int, ...] = ()  # target token ids that are already decided ("go on from here")
    messages: tuple[dict[str, str], ...] = ()  # chat turns {"role", "content"}; replaces prompt


class Candidate(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One rival for a position: its raw and final probability and the stage that removed it."""

    token: int
    piece: str
    raw: float
    final: float
    removed_by: str = ""


class StageReport(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one stage of the chain did at one position."""

    stage: str
    left: int
    mass: float  # raw probability mass of what is left
    entropy_before: float  # nats
    entropy_after: float
    removed: tuple[str, ...] = ()  # pieces of the most probable tokens it removed


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint as a list shows it."""

    name: str
    path: str
    family: str
    n_parameters: int
    vocab_size: int
    max_positions: int
    size_bytes: int
    summary: str = ""  # the card's first line
    source: Literal["bundled", "local", "run", "path"] = "local"
    problem: str = ""  # why it cannot be used, else empty
    scores: dict[str, float] = {}
    chat: bool = False  # carries a chat template
    languages: tuple[str, ...] = ()  # names of source and target language, for translation


class HeldModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model in the engine's memory."""

    path: str
    precision: str
    device: str
    size_bytes: int  # its weights
    prefix_bytes: int = 0  # keys and values of sequences that need not be computed again
    users: int = 0  # requests that hold on to it now


# --------------------------------------------------------------------------- requests
class Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="op"):
    id: int


class Hello(Request, frozen=True, kw_only=True, tag="hello"):
    version: int = PROTOCOL_VERSION


class ModelsList(Request, frozen=True, kw_only=True, tag="models.list"):
    pass


class OfModel(Request, frozen=True, kw_only=True):
    """A request that needs a model: a name that ``models.list`` gives, or a path."""

    model: str


class ModelsPull(Request, frozen=True, kw_only=True, tag="models.pull"):
    """Fetch a published checkpoint onto the engine's machine; answers LoadProgress, then ModelPulled."""

    name: str  # as `tfm-tui pull` takes it


class ModelsImport(Request, frozen=True, kw_only=True, tag="models.import"):
    """A Hugging Face folder or a GGUF file becomes a checkpoint; answers LoadProgress, then ModelImported."""

    source: str  # a path on the engine's machine
    name: str
    source_language: str = ""  # codes of a model of many languages, such as eng_Latn
    target_language: str = ""


class ModelsCard(OfModel, frozen=True, kw_only=True, tag="models.card"):
    """Everything a checkpoint says of itself; answers ModelCard. Also where it cannot be loaded."""


class ModelsVerify(OfModel, frozen=True, kw_only=True, tag="models.verify"):
    """Compare files with the manifest and look at every number; answers LoadProgress, then ModelVerified."""


class ModelsDelete(OfModel, frozen=True, kw_only=True, tag="models.delete"):
    """Delete a checkpoint under ``$TFM_HOME``, never another one; it is unloaded first."""


class ModelUnload(OfModel, frozen=True, kw_only=True, tag="model.unload"):
    """Give back the memory of a model that no request uses; closed by ``{"freed": bytes}``."""


class ModelLoad(OfModel, frozen=True, kw_only=True, tag="model.load"):
    precision: Precision = "auto"


class Generate(OfModel, frozen=True, kw_only=True, tag="generate"):
    """Decode all lanes as one batch; answers Token events, a LaneDone a lane, then Done."""

    lanes: tuple[Lane, ...]
    max_tokens: int = 128
    stop: tuple[str, ...] = ()
    n_top: int = 5  # candidates reported a token; 0 turns the reports off
    trace: bool = False  # report every stage (StageReport) too


class Beam(OfModel, frozen=True, kw_only=True, tag="beam"):
    """Beam search for each source; answers BeamStep events, a LaneDone a source, then Done."""

    sources: tuple[str, ...]
    width: int = 5
    length_penalty: float = 1.0
    max_tokens: int = 128


class Tune(Request, frozen=True, kw_only=True, tag="tune"):
    """New settings for a running Generate; they act at the next token."""

    target: int
    settings: SamplingSettings
    lane: int | None = None  # None: every lane


class Resample(OfModel, frozen=True, kw_only=True, tag="resample"):
    """Generate anew from a position of one lane, optionally with a token put there by hand."""

    lane: Lane
    keep: int  # tokens of lane.prefix to keep
    token: int | None = None
    max_tokens: int = 128
    stop: tuple[str, ...] = ()
    n_top: int = 5


class Score(OfModel, frozen=True, kw_only=True, tag="score"):
    """Log-probability of each token of a given text (given a source, for translation)."""

    text: str
    source: str = ""


class Tokenize(OfModel, frozen=True, kw_only=True, tag="tokenize"):
    """Which tokens are texts made of, and what do ids stand for? Answers Tokenized."""

    texts: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()


class Attend(OfModel, frozen=True, kw_only=True, tag="attend"):
    """Attention maps for a source/target pair or one text.

    Answers one Attended for each stack of attentions (cross, decoder, encoder, as the family has
    them), cross-attention first.
    """

    text: str
    source: str = ""


class Fill(OfModel, frozen=True, kw_only=True, tag="fill"):
    """The top candidates of each mask in the text; with settings, also a token drawn for each."""

    text: str
    n_top: int = 5
    settings: SamplingSettings | None = None
    seed: int = 0


class Cancel(Request, frozen=True, kw_only=True, tag="cancel"):
    target: int


class RunsList(Request, frozen=True, kw_only=True, tag="runs.list"):
    pass


class RunStart(Request, frozen=True, kw_only=True, tag="run.start"):
    config: str  # path of a TOML file on the engine's machine
    overrides: dict[str, str] = {}
    resume: str = ""
    nproc: int = 1  # processes that train together


class RunFollow(Request, frozen=True, kw_only=True, tag="run.follow"):
    """Answers RunEvents batches from ``after_seq`` on until cancelled or the run has ended."""

    run: str
    after_seq: int = -1


class RunControl(Request, frozen=True, kw_only=True, tag="run.control"):
    run: str
    command: str  # see tfm.train.events.COMMANDS
    args: dict[str, Any] = {}


class RunCheckpoints(Request, frozen=True, kw_only=True, tag="run.checkpoints"):
    """Answers RunCheckpointsListed."""

    run: str


class RunFork(Request, frozen=True, kw_only=True, tag="run.fork"):
    """A new run that goes on from a checkpoint of another; answers RunStarting."""

    run: str
    checkpoint: str  # a RunCheckpoint's name; "": the newest
    overrides: dict[str, str] = {}  # what is other in the new run's config


class RunStats(Request, frozen=True, kw_only=True, tag="run.stats"):
    """Answers Box and TrainerStats, each only where the run's trainer is a process of this machine."""

    run: str


class BoxStats(Request, frozen=True, kw_only=True, tag="box.stats"):
    pass


class Shutdown(Request, frozen=True, kw_only=True, tag="shutdown"):
    pass


AnyRequest = (
    Hello | ModelsList | ModelsPull | ModelsImport | ModelsCard | ModelsVerify | ModelsDelete | ModelLoad
    | ModelUnload | Generate | Beam | Tune | Resample | Score | Tokenize | Attend | Fill | Cancel | RunsList
    | RunStart | RunFollow | RunControl | RunCheckpoints | RunFork | RunStats | BoxStats | Shutdown
)  # fmt: skip


# --------------------------------------------------------------------------- events
class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    id: int


class Welcome(Event, frozen=True, kw_only=True, tag="welcome"):
    version: int
    app_version: str
    device: str  # "cpu", "cuda:0 NVIDIA ..."
    host: str
    pid: int
    threads: int


class ModelsListed(Event, frozen=True, kw_only=True, tag="models"):
    models: tuple[ModelInfo, ...]
    held: tuple[HeldModel, ...] = ()  # what is in memory, the one used last at the end
    budget_bytes: int = 0  # what models may take together, caches included; 0: not known yet


class LoadProgress(Event, frozen=True, kw_only=True, tag="load.progress"):
    fraction: float
    stage: str = ""


class ModelPulled(Event, frozen=True, kw_only=True, tag="model.pulled"):
    info: ModelInfo


class ModelImported(Event, frozen=True, kw_only=True, tag="model.imported"):
    info: ModelInfo


class ModelCard(Event, frozen=True, kw_only=True, tag="model.card"):
    info: ModelInfo
    card: str  # card.md as it is: text of whoever wrote it
    config: dict[str, Any]  # ModelConfig by field, defaults too; empty where it cannot be read
    files: dict[str, int]  # name and bytes
    training: dict[str, Any] = {}  # training.json


class ModelVerified(Event, frozen=True, kw_only=True, tag="model.verified"):
    problem: str  # the first thing that is wrong; empty: every file is as its manifest says
    n_files: int = 0
    n_bytes: int = 0


class ModelLoaded(Event, frozen=True, kw_only=True, tag="model.loaded"):
    info: ModelInfo
    device: str
    precision: str
    seconds: float


class Token(Event, frozen=True, kw_only=True, tag="token", gc=False):
    lane: int
    position: int  # index among the generated tokens, prefix included
    token: int
    piece: str  # exact new text; incomplete characters are held back until they are whole
    logprob: float  # nats, under the model's raw distribution
    entropy: float  # nats, of the raw distribution
    probability: float  # final probability it was drawn with
    top: tuple[Candidate, ...] = ()
    trace: tuple[StageReport, ...] = ()
    settings_mark: bool = False  # first token drawn under new settings
    settings: SamplingSettings | None = None  # where it is marked: those new settings


class BeamHypothesis(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    text: str
    score: float


class BeamStep(Event, frozen=True, kw_only=True, tag="beam.step"):
    lane: int
    position: int
    hypotheses: tuple[BeamHypothesis, ...]  # best first


class LaneDone(Event, frozen=True, kw_only=True, tag="lane.done"):
    lane: int
    reason: Literal["eos", "length", "stop", "cancelled"]
    text: str
    tokens: tuple[int, ...]
    logprob: float
    score: float | None = None  # beam: length-normalised
    n_prompt: int = 0
    dropped_turns: tuple[int, ...] = ()  # messages of a chat that its context had no room for


class Done(Event, frozen=True, kw_only=True, tag="done"):
    """The request is answered in full; nothing more comes with this id."""

    seconds: float = 0.0
    n_tokens: int = 0
    tokens_per_second: float = 0.0
    detail: dict[str, Any] = {}


class ScoredToken(msgspec.Struct, frozen=True, kw_only=True):
    token: int
    piece: str
    logprob: float
    entropy: float
    rank: int


class Scored(Event, frozen=True, kw_only=True, tag="scored"):
    tokens: tuple[ScoredToken, ...]
    logprob: float
    perplexity: float


class VocabularyToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token of a model's vocabulary as a person may read it."""

    token: int
    piece: str
    special: bool = False  # it marks something and is no text


class Tokenized(Event, frozen=True, kw_only=True, tag="tokenized"):
    texts: tuple[tuple[VocabularyToken, ...], ...]  # by text
    ids: tuple[VocabularyToken, ...]  # in the order asked


class MaskFill(msgspec.Struct, frozen=True, kw_only=True):
    """One mask: its rivals, the likeliest first. ``final`` is what the settings make of ``raw``."""

    position: int
    candidates: tuple[Candidate, ...]
    entropy: float = 0.0  # nats, of the raw distribution
    drawn: Candidate | None = None  # where settings were given


class Filled(Event, frozen=True, kw_only=True, tag="filled"):
    pieces: tuple[str, ...]
    masks: tuple[MaskFill, ...]


class Attended(Event, frozen=True, kw_only=True, tag="attended"):
    source_pieces: tuple[str, ...]  # keys
    target_pieces: tuple[str, ...]  # queries
    kind: Literal["self", "cross"]
    part: Literal["encoder", "decoder", "cross"] = "cross"
    layers: tuple[tuple[tuple[tuple[float, ...], ...], ...], ...]  # layer, head, query, key


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A run as a list shows it."""

    run: str
    path: str
    state: Literal["running", "paused", "finished", "stopped", "failed", "lost"]
    step: int = 0
    total_steps: int = 0
    started: float = 0.0  # seconds since the epoch
    owner: str = ""  # host:pid
    best: dict[str, float] = {}


class RunsListed(Event, frozen=True, kw_only=True, tag="runs"):
    runs: tuple[RunInfo, ...]


class RunStarting(Event, frozen=True, kw_only=True, tag="run.started"):
    run: str
    path: str


class RunEvents(Event, frozen=True, kw_only=True, tag="run.events"):
    """Raw lines of the run's event log, decoded by tfm.train.events."""

    run: str
    lines: tuple[str, ...]
    bad_lines: int = 0


class RunCheckpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint of a run that it can go back to, or be forked from."""

    name: str  # its step, or the name of the bookmark
    step: int
    saved: float  # seconds since the epoch
    best: bool = False
    scores: dict[str, float] = {}


class RunCheckpointsListed(Event, frozen=True, kw_only=True, tag="run.checkpoints"):
    run: str
    checkpoints: tuple[RunCheckpoint, ...]  # by step


class TrainerStats(Event, frozen=True, kw_only=True, tag="trainer"):
    """What the trainer's own processes take. Two of these give its load."""

    pid: int
    memory: int  # bytes, resident, of it and of the processes that it started
    cpu_seconds: float  # that all of them have used so far
    at: float  # seconds of a clock that only goes forward
    gpu_memory: int | None = None  # bytes; None where no driver says


class Box(Event, frozen=True, kw_only=True, tag="box"):
    cpu_percent: float
    memory_used: int
    memory_total: int
    gpus: tuple[dict[str, Any], ...] = ()
    cpu_temperature: float | None = None  # degrees Celsius, of the hottest core; None where no sensor says


class Error(Event, frozen=True, kw_only=True, tag="error"):
    """The request cannot be served; nothing more comes with this id."""

    kind: Literal["bad_request", "not_found", "bad_checkpoint", "out_of_memory", "unsupported", "internal"]
    message: str


AnyEvent = (
    Welcome | ModelsListed | LoadProgress | ModelPulled | ModelImported | ModelCard | ModelVerified
    | ModelLoaded | Token | BeamStep | LaneDone | Done | Scored | Tokenized | Filled | Attended | RunsListed
    | RunStarting | RunEvents | RunCheckpointsListed | TrainerStats | Box | Error
)  # fmt: skip

_request_decoder: msgspec.json.Decoder[AnyRequest] = msgspec.json.Decoder(AnyRequest)
_event_decoder: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)


def encode(message: Request | Event) -> bytes:
    """One line, newline included."""
    return msgspec.json.encode(message) + b"\n"


def decode_request(line: bytes) -> AnyRequest:
    """Raises msgspec.DecodeError on anything that is no request."""
    request: AnyRequest = _request_decoder.decode(line)
    return request


def decode_event(line: bytes) -> AnyEvent:
    """Raises msgspec.DecodeError on anything that is no event."""
    event: AnyEvent = _event_decoder.decode(line)
    return event
