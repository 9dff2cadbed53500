"""What a person types to start a run, in the app and in plain mode: the words of ``tfm-tui train``."""

from __future__ import annotations

import shlex

from tfm.core.engine import protocol

USAGE = "mine.toml loop.max_steps=500 --nproc 2"
EXAMPLE = """\
# mine.toml: to translate, from pairs.tsv,
# which holds a pair a line: source, TAB, target
name = "mine"

[data]
train = "pairs.tsv"
format = "tsv"
valid_fraction = 0.05
vocab_size = 3000

[model]
d_model = 128
n_encoder_layers = 3
n_decoder_layers = 3

[loop]
max_steps = 3000
"""
"""A config of somebody's first run, to show where there is none yet."""


def run_start(text: str) -> protocol.RunStart:
    """``CONFIG [section.key=value ...] [--nproc N]`` as the request that starts it.

    Raises:
        ValueError: it is none; the sentence says what to type.
    """
    try:
        words = shlex.split(text)
    except ValueError:
        raise ValueError("A quotation mark is not closed.") from None
    config, nproc, overrides = "", 1, dict[str, str]()
    rest = iter(words)
    for word in rest:
        if word == "--nproc" or word.startswith("--nproc="):
            nproc = _count(word.partition("=")[2] or next(rest, ""))
        elif word == "--set":
            continue  # what follows says the same without it
        elif "=" in word and "/" not in word.partition("=")[0]:
            key, value = changed(word)
            overrides[key] = value
        elif config or word.startswith("--"):
            raise ValueError(f"{word!r} is one word too many: name a config file, such as {USAGE}.")
        else:
            config = word
    if not config:
        raise ValueError(f"Name a config file, such as {USAGE}.")
    return protocol.RunStart(id=0, config=config, overrides=overrides, nproc=nproc)


def changed(text: str) -> tuple[str, str]:
    """``section.key=value`` as key and value. Raises ValueError where it is not that."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ValueError(f"{text!r} is not section.key=value, such as optim.learning_rate=1e-3")
    return key.strip(), value.strip()


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise ValueError(f"--nproc takes a number of processes from 1 on, not {text!r}.")
    return int(text)
