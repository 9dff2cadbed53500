"""A config made independent of where it was written: defaults filled in, data paths absolute. No torch."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from tfm.train.config import TrainConfig, load_config
from tfm.train.corpus_files import files_of, find_corpus

DATA_FILES = ("train_source", "train_target", "valid_source", "valid_target", "train", "valid")


def resolve_config(path: Path | str, overrides: dict[str, str] | None = None) -> TrainConfig:
    """Read a config, apply overrides, make its paths absolute and see that the files exist.

    Raises:
        ValueError: one sentence naming the file and the key.
    """
    config = load_config(path, overrides)
    base = Path(path).expanduser().absolute().parent
    found: dict[str, str] = {}
    for field in DATA_FILES:
        name = getattr(config.data, field)
        if name:
            try:
                found[field] = str(find_corpus(base / Path(name).expanduser()))
                files_of(found[field])
            except ValueError as error:
                raise ValueError(f"{path}: data.{field}: {error}") from None
    loop, start = config.loop, base / Path(config.loop.init_from).expanduser()
    if loop.init_from and (start / "config.json").is_file():  # else it is a name
        loop = msgspec.structs.replace(loop, init_from=str(start))
    return msgspec.structs.replace(config, loop=loop, data=msgspec.structs.replace(config.data, **found))


def to_toml(config: TrainConfig) -> str:
    """All fields, defaults too, so that a run stays what it was when a default changes."""
    sections = {name: getattr(config, name) for name in config.__struct_fields__}
    lines = [f"{k} = {_value(v)}" for k, v in sections.items() if not isinstance(v, msgspec.Struct)]
    for name, section in sections.items():
        if isinstance(section, msgspec.Struct):
            lines += ["", f"[{name}]"]
            values = ((field, getattr(section, field)) for field in section.__struct_fields__)
            lines += [f"{field} = {_value(value)}" for field, value in values if value is not None]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    """A TOML value. Its strings are JSON's, but for DEL, which TOML wants escaped."""
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value).lower() if isinstance(value, bool) else repr(value)
