"""Chat: messages to the token ids that a model is fed, within its context.

A checkpoint that can chat carries ``chat_template.jinja``, in the form that ``transformers`` uses, so
that a published one works as it is. What a person typed stays data: where it holds the name of a
special token, such as ``<|im_end|>``, those are characters and never the token.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfm.core.checkpoint import Checkpoint
from tfm.core.templates import TemplateError, shared_renderer
from tfm.core.tokenizer import Tokenizer

TEMPLATE_FILE = "chat_template.jinja"
ROLES = ("system", "user", "assistant", "tool")

DIALOGUE_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{{- raise_exception('this model was trained without system prompts; leave it out') -}}
{%- endif -%}
{{- message['content'] | trim -}}{{- eos_token -}}
{%- endfor -%}
"""
"""The format of the dialogue models trained here: ``<s>one</s>the other</s>one again</s>``.

Who speaks is told by whose turn it is; the model writes after the last ``</s>`` and ends its own turn
with another.
"""

Message = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """What a chat comes to.

    ``dropped_turns`` are the indices of the messages that were left out, oldest first, because the
    context is too short for all; system prompts are never among them. ``room`` is how many tokens the
    context still takes.
    """

    ids: tuple[int, ...]
    text: str
    dropped_turns: tuple[int, ...]
    room: int


def chat_prompt_ids(
    checkpoint: Checkpoint, messages: Sequence[Message], max_new_tokens: int, n_begun: int = 0
) -> ChatPrompt:
    """The prompt for the next reply. A last message of the assistant's is one to go on with.

    Where the whole history leaves no room for a reply of ``max_new_tokens`` (or half of the context, if
    that is less), the oldest exchanges go, each a user's message with all that follows up to the next.
    ``n_begun`` tokens of the reply are there already and need room of their own.

    Raises:
        ValueError: the checkpoint has no template, the template refuses or misbehaves, a message is
            malformed, or the last one alone is too long.
    """
    require_template(checkpoint)
    _check(messages)
    template = _read_template(checkpoint.path)
    limit = checkpoint.config.max_positions
    room_wanted = n_begun + min(max_new_tokens, max(limit - n_begun, 2) // 2)
    exchanges = _exchanges(messages)

    def prompt_without(n_dropped: int) -> ChatPrompt:
        dropped = {index for exchange in exchanges[:n_dropped] for index in exchange}
        kept = [message for index, message in enumerate(messages) if index not in dropped]
        text, ids = _prompt(checkpoint, template, kept)
        return ChatPrompt(tuple(ids), text, tuple(sorted(dropped)), limit - len(ids))

    whole = prompt_without(0)
    if whole.room >= room_wanted:
        return whole
    # Search by halves for the fewest exchanges to drop; the last one always stays.
    fewest, most = 1, len(exchanges) - 1
    best = prompt_without(most) if most > 0 else whole
    while fewest < most:
        middle = (fewest + most) // 2
        tried = prompt_without(middle)
        if tried.room >= room_wanted:
            best, most = tried, middle
        else:
            fewest = middle + 1
    if best.room < 1:
        raise ValueError(
            f"the last message makes a prompt of {len(best.ids):,} tokens, but {checkpoint.path.name} takes "
            f"{limit:,} with the reply; shorten it"
        )
    return best


def require_template(checkpoint: Checkpoint) -> None:
    """Raise ValueError where the checkpoint cannot chat, before anything is said to it."""
    if checkpoint.config.family != "decoder-only":
        raise ValueError(
            f"{checkpoint.path.name} is {checkpoint.config.family}; only decoder-only models chat"
        )
    _read_template(checkpoint.path)


def _check(messages: Sequence[Message]) -> None:
    if not messages:
        raise ValueError("a chat needs at least one message")
    for number, message in enumerate(messages, 1):
        role = message.get("role")
        if role not in ROLES:
            raise ValueError(f"message {number} has the role {role!r}; it must be one of {', '.join(ROLES)}")
        if not isinstance(message.get("content"), str):
            raise ValueError(f"message {number} has no content")
    if messages[-1]["role"] == "system":
        raise ValueError("the last message is a system prompt; a chat needs something to reply to")


def _read_template(folder: Path) -> str:
    path = folder / TEMPLATE_FILE
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(
            f"{folder.name} has no chat template ({TEMPLATE_FILE}): it continues texts, with "
            "`tfm-tui generate`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None


def _exchanges(messages: Sequence[Message]) -> list[list[int]]:
    """Indices of the messages that are dropped together: a user's and what answers it."""
    exchanges: list[list[int]] = []
    for index, message in enumerate(messages):
        if message["role"] == "system":
            continue
        if message["role"] == "user" or not exchanges:
            exchanges.append([])
        exchanges[-1].append(index)
    return exchanges


def _prompt(checkpoint: Checkpoint, template: str, messages: Sequence[Message]) -> tuple[str, list[int]]:
    """Text and ids of exactly these messages."""
    tokenizer = checkpoint.tokenizer
    stand_ins = _stand_ins(tokenizer, messages)
    hidden = [
        {key: value if key == "role" else _replace(value, stand_ins) for key, value in message.items()}
        for message in messages
    ]
    begun = hidden.pop()["content"] if messages[-1]["role"] == "assistant" else ""
    variables = {
        **_special_texts(checkpoint),
        "messages": hidden,
        "add_generation_prompt": True,
        "tools": None,
    }
    try:
        text = shared_renderer().render(template, variables) + begun
    except TemplateError as error:
        raise ValueError(f"the chat template of {checkpoint.path.name} {error}") from None
    shown = _replace(text, {stand_in: special for special, stand_in in stand_ins.items()})
    if not stand_ins:
        return shown, tokenizer.encode(text, specials=True)
    return shown, _encode_around(tokenizer, text, stand_ins)


def _special_texts(checkpoint: Checkpoint) -> dict[str, str]:
    """What templates know as ``bos_token`` and ``eos_token``.

    An imported model may have a first token that is not put in front of plain texts; training.json
    (``origin.special_tokens``) names it then.
    """
    config, origin = checkpoint.config, checkpoint.training.get("origin")
    ids = {"bos_token": config.bos_id, "eos_token": config.eos_id}
    texts = {name: "" if index is None else checkpoint.tokenizer.piece(index) for name, index in ids.items()}
    named = origin.get("special_tokens") if isinstance(origin, dict) else None
    if isinstance(named, dict):
        texts |= {name: text for name, text in named.items() if isinstance(text, str)}
    return texts


def _stand_ins(tokenizer: Tokenizer, messages: Sequence[Message]) -> dict[str, str]:
    """For each special token whose name stands in a message: characters to take its place meanwhile.

    A template is free to trim, split and compare what was said, so the text around stays as it is. The
    stand-ins cannot be guessed, or somebody could write them.
    """
    said = [value for message in messages for key, value in message.items() if key != "role"]
    names = [name for name in tokenizer.specials if any(name in text for text in said)]
    nonce = secrets.randbelow(10**12)
    return {name: f"\ue000{nonce:012}{number:06}\ue001" for number, name in enumerate(names)}


def _replace(text: str, replacements: Mapping[str, str]) -> str:
    if not replacements:
        return text
    return _any_of(replacements).sub(lambda found: replacements[found.group()], text)


def _encode_around(tokenizer: Tokenizer, text: str, stand_ins: Mapping[str, str]) -> list[int]:
    """Ids where the template's own special tokens are tokens and those stood in for are characters."""
    back = {stand_in: name for name, stand_in in stand_ins.items()}
    specials = tokenizer.specials
    ids: list[int] = []
    end = 0
    for found in _any_of(specials).finditer(text):
        ids += tokenizer.encode(_replace(text[end : found.start()], back))
        ids.append(specials[found.group()])
        end = found.end()
    return ids + tokenizer.encode(_replace(text[end:], back))


def _any_of(texts: Mapping[str, Any]) -> re.Pattern[str]:
    """Matches any of the texts, the longest where one begins with another."""
    return re.compile("|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True)))
