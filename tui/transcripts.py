"""Conversations on disk: saved whole and atomically as they grow, opened again, exported.

They lie in ``$TFM_HOME/chats``, one JSON file each, readable by their owner alone. A file that another
window of the app has written meanwhile is left as it is: this one's conversation goes on in a file of
its own.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from tfm.core.catalog import checkpoint_home
from tfm.train.files import write_atomically
from tfm.tui.conversation import Conversation, Turn

MAX_BYTES = 64 << 20  # of a file that is opened
LISTED = 200  # conversations that a list shows


class Listed(NamedTuple):
    """A saved conversation as a list shows it."""

    key: str
    title: str
    changed: float  # seconds since the epoch
    n_turns: int
    problem: str = ""  # why it cannot be opened


class _Head(msgspec.Struct):
    """As much of a file as a list needs; the rest is skipped unread."""

    turns: list[Turn] = []
    shown: int = -1


class Transcripts:
    """The folder of saved conversations."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder if folder is not None else checkpoint_home() / "chats"
        self._written: dict[str, int] = {}  # by key: the file's time of change as we left or found it

    def path(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def new_key(self) -> str:
        return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"

    def save(self, conversation: Conversation) -> None:
        """Write it; where its file is new or not ours any more, it gets another key first.

        Raises:
            OSError: it cannot be written.
        """
        if not conversation.key or self._changed_elsewhere(conversation.key):
            conversation.key = self.new_key()
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self.path(conversation.key)
        write_atomically(path, msgspec.json.format(msgspec.json.encode(conversation), indent=1) + b"\n")
        self._written[conversation.key] = path.stat().st_mtime_ns

    def open(self, key: str) -> Conversation:
        """A saved conversation.

        Raises:
            ValueError: there is none, or it cannot be read; one sentence.
        """
        path = self.path(key)
        try:
            stamp = path.stat().st_mtime_ns
            conversation = msgspec.json.decode(_read(path), type=Conversation)
        except FileNotFoundError:
            raise ValueError(f"there is no conversation {key}") from None
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is no conversation: {error}") from None
        conversation.key = key
        self._written[key] = stamp
        return conversation

    def keys(self) -> list[str]:
        """The keys of what is there, the conversation changed last first."""
        return [path.stem for _, path in self._found()]

    def listed(self) -> list[Listed]:
        """What is there as a list shows it, the conversation changed last first."""
        return [_listed(path, changed) for changed, path in self._found()[:LISTED]]

    def latest(self) -> Conversation | None:
        """The conversation that was changed last and can be read."""
        for key in self.keys():
            with contextlib.suppress(ValueError):
                return self.open(key)
        return None

    def _found(self) -> list[tuple[float, Path]]:
        try:
            files = [entry for entry in os.scandir(self.folder) if entry.name.endswith(".json")]
            found = [(file.stat().st_mtime, Path(file.path)) for file in files if file.name[0] != "."]
        except OSError:  # no folder yet, or not ours to read: then it holds nothing for us
            return []
        return sorted(found, reverse=True)

    def _changed_elsewhere(self, key: str) -> bool:
        try:
            return self.path(key).stat().st_mtime_ns != self._written.get(key)
        except FileNotFoundError:
            return False


# --------------------------------------------------------------------------- export
def as_markdown(conversation: Conversation) -> str:
    """The turns on the screen, as a person reads them; how each reply was made stands below it."""
    parts = [f"# {conversation.title or 'Conversation'}"]
    if conversation.system.strip():
        parts.append("> " + "\n> ".join(conversation.system.strip().splitlines()))
    for number in conversation.path:
        turn = conversation.turns[number]
        who = "You" if turn.role == "user" else (turn.model or "Model")
        parts.append(f"## {who}\n\n{turn.text.strip()}")
        if turn.role == "assistant":
            parts.append(f"*{how_made(turn)}*")
    return "\n\n".join(parts) + "\n"


def as_json(conversation: Conversation) -> bytes:
    """The whole tree with every setting, and the turns on the screen as messages for other programs."""
    messages = conversation.messages(conversation.last)
    whole = {"title": conversation.title, "messages": messages, "conversation": conversation}
    return msgspec.json.format(msgspec.json.encode(whole), indent=1)


def export(conversation: Conversation, folder: Path) -> tuple[Path, Path]:
    """Write a Markdown and a JSON file into the folder, over none that are there; their paths.

    Raises:
        OSError: it cannot be written there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"chat-{conversation.key or 'unsaved'}"
    number = 1
    while (folder / f"{name}.md").exists() or (folder / f"{name}.json").exists():
        number += 1
        name = f"chat-{conversation.key or 'unsaved'}-{number}"
    markdown, plain = folder / f"{name}.md", folder / f"{name}.json"
    write_atomically(markdown, as_markdown(conversation).encode("utf-8", "replace"))
    write_atomically(plain, as_json(conversation) + b"\n")
    return markdown, plain


def how_made(reply: Turn) -> str:
    """Seed, settings that are not neutral, and how it ended."""
    settings = ", ".join(f"{name} {getattr(reply.settings, name)}" for name in reply.settings.active())
    ends = {"length": "cut at its longest", "cancelled": "stopped", "stop": "ended by a stop string",
            "lost": "broken off", "edited": "written or changed by hand"}  # fmt: skip
    if reply.reason == "edited":
        return ends["edited"]
    parts = [f"{len(reply.tokens)} tokens", f"seed {reply.seed}", settings, ends.get(reply.reason, "")]
    return " · ".join(part for part in parts if part)


# --------------------------------------------------------------------------- reading
def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise msgspec.DecodeError(f"it is larger than {MAX_BYTES:,} bytes")
    return data


def _listed(path: Path, changed: float) -> Listed:
    try:
        head = msgspec.json.decode(_read(path), type=_Head)
        conversation = Conversation(turns=head.turns, shown=head.shown)
    except (OSError, ValueError) as error:
        return Listed(path.stem, "", changed, 0, str(error))
    return Listed(path.stem, conversation.title, changed, len(conversation.path))
