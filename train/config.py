"""TrainConfig: one TOML file describes a training run completely. No torch.

Every field that a run depends on is here; what is derived (vocabulary, number of steps an epoch)
is not. Unknown keys and wrong types are refused with the file and the key.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import msgspec

from tfm.core.config import Family, ModelConfig

Objective = Literal["translation", "causal-lm", "masked-lm"]
FAMILIES: dict[Objective, Family] = {
    "translation": "encoder-decoder",
    "causal-lm": "decoder-only",
    "masked-lm": "encoder-only",
}


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class DataConfig(_Section, frozen=True, kw_only=True):
    """Corpora. Paths are relative to the config file; ``.gz`` is read as it is."""

    train_source: str = ""  # translation: one sentence a line
    train_target: str = ""
    valid_source: str = ""
    valid_target: str = ""
    train: str = ""  # one file: TSV (source TAB target), JSONL (or a dataset folder), plain text
    valid: str = ""
    format: Literal["lines", "tsv", "jsonl", "text", "dialogue"] = "lines"
    source_field: str = "source"  # of a JSONL object; a column number for TSV
    target_field: str = "target"
    text_field: str = "text"  # of a JSONL object that is one document
    turns_field: str = "turns"  # of a JSONL object that is one conversation
    drop_pattern: str = ""  # a regular expression; documents that match it anywhere are left out
    valid_fraction: float = 0.0  # share of the training set to hold out where no validation set is named
    source_language: str = ""
    target_language: str = ""
    max_tokens: int = 256  # longer examples are left out of training, counted and reported
    vocab_size: int = 8000
    min_frequency: int = 2
    lowercase: bool = False
    bpe_dropout: float = 0.0  # translation: probability of leaving out a merge; words are cut anew each time


class ModelSection(_Section, frozen=True, kw_only=True):
    """The fields of ModelConfig that a person chooses; the rest follows from the tokenizer."""

    d_model: int = 256
    n_heads: int = 4
    n_kv_heads: int | None = None
    d_ff: int = 1024
    n_encoder_layers: int = 0
    n_decoder_layers: int = 0
    max_positions: int = 512
    norm: Literal["layernorm", "rmsnorm"] = "layernorm"
    norm_position: Literal["pre", "post"] = "pre"
    positions: Literal["sinusoidal", "learned", "rotary"] = "sinusoidal"
    sinusoidal_layout: Literal["interleaved", "halves", "halves-t2t"] = "interleaved"
    activation: Literal["relu", "gelu", "gelu_tanh", "silu"] = "relu"
    gated_ff: bool = False
    qkv_bias: bool = True
    out_bias: bool = True
    ff_bias: bool = True
    dropout: float = 0.1
    tie_output: bool = True


class OptimConfig(_Section, frozen=True, kw_only=True):
    learning_rate: float = 1e-3  # peak
    schedule: Literal["inverse-sqrt", "cosine", "wsd", "constant"] = "inverse-sqrt"
    warmup_steps: int = 1000
    final_lr_fraction: float = 0.1  # cosine and wsd end here
    decay_fraction: float = 0.2  # wsd: share of the steps that cool down
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-9
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    label_smoothing: float = 0.1
    r_drop: float = 0.0  # alpha of R-Drop: each batch is read twice and the readings pulled together; 0: once
    r_drop_after: int = 0  # so many steps come first that read each batch once, at half the cost
    ema: float = (
        0.0  # decay of a moving average of the weights, which is then what is scored and kept; 0: none
    )


class LoopConfig(_Section, frozen=True, kw_only=True):
    max_steps: int = 10_000
    max_minutes: float = 0.0  # 0: no limit
    batch_tokens: int = 4096  # target tokens of one optimiser step
    accumulate: int = 1  # forward/backward passes of one optimiser step
    seed: int = 1
    init_from: str = ""  # a checkpoint, by name or path, whose weights and tokenizer the run starts with
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: str = "auto"
    threads: int = 0  # 0: as many as torch chooses
    parallel: Literal["ddp", "fsdp"] = "ddp"  # several processes: each the whole model, or a shard of it
    compile: bool = False  # torch.compile of the layers, where it works
    gradient_checkpointing: bool = False  # less memory: layers are computed again on the way back
    log_every: int = 20
    eval_every: int = 500
    bleu_sentences: int = 200  # of the validation set, translated greedily at each evaluation; 0: none
    save_every: int = 500
    keep_last: int = 5
    average_last: int = 5  # final weights: mean of the last N checkpoints; 0 or 1, or optim.ema: no mean
    patience: int = 0  # evaluations without a better best before stopping; 0: never
    best_by: Literal["loss", "bleu", "chrf", "accuracy"] = "loss"
    sample_sentences: int = 4
    samples: tuple[str, ...] = ()  # fixed prompts; empty: first sentences of the validation set


class GuardConfig(_Section, frozen=True, kw_only=True):
    """What happens to a step whose loss is not finite, or far above those before it.

    It is never applied. The run goes back to its newest checkpoint (to an older one each further time
    that it does not get past the trouble), changes what stands here, and goes on.
    """

    spike_deviations: float = 8.0  # a loss so many deviations above the mean is a spike; 0: none is
    window: int = 100  # mean and deviation are those of so many losses; half of them must be there
    skip: bool = True  # the batches of that step are left out
    lower_by: float = 0.5  # the learning rate is multiplied by this ...
    lower_steps: int = 1000  # ... for so many steps; 0: for the rest of the run
    attempts: int = 3  # times without getting past the trouble before the run ends, its checkpoints intact


class TrainConfig(_Section, frozen=True, kw_only=True):
    name: str
    objective: Objective = "translation"
    data: DataConfig
    model: ModelSection
    optim: OptimConfig = OptimConfig()
    loop: LoopConfig = LoopConfig()
    guard: GuardConfig = GuardConfig()

    def model_config(self, vocab_size: int, special: dict[str, int | None]) -> ModelConfig:
        """The architecture, once the tokenizer is known. Raises ValueError where fields do not fit."""
        m = self.model
        fields: dict[str, Any] = {name: getattr(m, name) for name in m.__struct_fields__}
        offset = special["pad_id"] + 1 if m.sinusoidal_layout == "halves-t2t" else 0  # type: ignore[operator]
        return ModelConfig.create(
            family=FAMILIES[self.objective],
            vocab_size=vocab_size,
            scale_embeddings=m.positions == "sinusoidal",
            position_offset=offset,
            **fields,
            **special,
        )


def load_config(path: Path | str, overrides: dict[str, str] | None = None) -> TrainConfig:
    """Read a TOML file, apply ``{"optim.learning_rate": "1e-3"}`` overrides, validate.

    Raises:
        ValueError: one sentence naming the file and the key.
    """
    path = Path(path)
    try:
        raw = msgspec.toml.decode(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"no config file at {path}") from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from None
    for key, text in (overrides or {}).items():
        _set(raw, key, text)
    return parse_config(raw, str(path))


def parse_config(raw: Any, where: str) -> TrainConfig:
    """Validate decoded TOML; ``where`` is named in the ValueError."""
    try:
        config = msgspec.convert(raw, TrainConfig)
        check(config)
    except (msgspec.ValidationError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None
    return config


def _set(raw: dict[str, Any], dotted: str, text: str) -> None:
    """Set a.b=text, where text is read as TOML if it can be and as a string if not."""
    try:
        value = msgspec.toml.decode(f"x = {text}")["x"]
    except msgspec.DecodeError:
        value = text
    *parents, last = dotted.split(".")
    node = raw
    for part in parents:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise ValueError(f"--set {dotted}: {part} is a value, not a section")
    node[last] = value


def check(config: TrainConfig) -> None:
    """Raise ValueError for values that are typed right and mean nothing."""
    loop, optim, data, guard = config.loop, config.optim, config.data, config.guard
    for name, value, low in (
        ("loop.max_steps", loop.max_steps, 1),
        ("loop.batch_tokens", loop.batch_tokens, 1),
        ("loop.accumulate", loop.accumulate, 1),
        ("loop.log_every", loop.log_every, 1),
        ("loop.eval_every", loop.eval_every, 1),
        ("loop.save_every", loop.save_every, 1),
        ("loop.keep_last", loop.keep_last, 2),
        ("optim.warmup_steps", optim.warmup_steps, 0),
        ("optim.r_drop_after", optim.r_drop_after, 0),
        ("data.vocab_size", data.vocab_size, 300),
        ("data.max_tokens", data.max_tokens, 2),
        ("guard.spike_deviations", guard.spike_deviations, 0),
        ("guard.window", guard.window, 4),
        ("guard.lower_steps", guard.lower_steps, 0),
        ("guard.attempts", guard.attempts, 0),
    ):
        if value < low:
            raise ValueError(f"{name} must be at least {low}, not {value}")
    if not 0.0 < optim.learning_rate <= 1.0:
        raise ValueError(f"optim.learning_rate must lie in (0, 1], not {optim.learning_rate}")
    if not 0.0 <= optim.label_smoothing < 1.0:
        raise ValueError(f"optim.label_smoothing must lie in [0, 1), not {optim.label_smoothing}")
    if not 0.0 <= optim.r_drop <= 100.0:
        raise ValueError(f"optim.r_drop must lie in [0, 100], not {optim.r_drop}")
    if not 0.0 <= optim.ema < 1.0:
        raise ValueError(f"optim.ema must lie in [0, 1), not {optim.ema}")
    if not 0.0 < guard.lower_by <= 1.0:
        raise ValueError(f"guard.lower_by must lie in (0, 1], not {guard.lower_by}")
    if not 0.0 <= data.bpe_dropout < 1.0:
        raise ValueError(f"data.bpe_dropout must lie in [0, 1), not {data.bpe_dropout}")
    if data.bpe_dropout and config.objective != "translation":
        raise ValueError(f"data.bpe_dropout is for translation, not {config.objective}; leave it at 0")
    if not 0.0 <= data.valid_fraction < 1.0:
        raise ValueError(f"data.valid_fraction must lie in [0, 1), not {data.valid_fraction}")
    try:
        re.compile(data.drop_pattern)
    except re.error as error:
        raise ValueError(f"data.drop_pattern is no regular expression: {error}") from None
    if data.drop_pattern and data.format == "text":
        raise ValueError('data.drop_pattern leaves out documents, but with format = "text" the file is one')
    if not config.name or "/" in config.name or config.name.startswith("."):
        raise ValueError(f"name must be a plain folder name, not {config.name!r}")
    if config.objective == "translation":
        pair = bool(data.train_source) and bool(data.train_target)
        if not pair and not data.train:
            raise ValueError(
                'data needs train_source and train_target, or train with format = "tsv" or "jsonl"'
            )
    elif config.objective == "causal-lm" and not data.train:
        raise ValueError("data needs train: a text, JSONL or dialogue file")
    elif config.objective == "masked-lm" and not (data.train or data.train_source):
        raise ValueError("data needs train: a file of one sentence a line")
    if not loop.init_from:  # else the shape is that of the weights
        try:
            config.model_config(data.vocab_size, {"pad_id": 0})
        except ValueError as error:
            raise ValueError(f"model: {error}") from None
