"""Rebinding: ``$TFM_HOME/keys.toml`` gives bindings other keys, by their ids.

    "temperature.raise" = "alt+up"
    "app.help" = ["f1", "?"]
    "chat.pull" = []                # no key; the command palette still has it

What is wrong in the file costs one sentence and that one change, never the start. Textual has a keymap
of its own; it looks at which keys an input takes before it changes them, so that a letter moved to a
control key would be dead while text is typed. Therefore each node's bindings are changed here, when it
is mounted.
"""

from __future__ import annotations

import difflib
import re
import string
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from textual.binding import Binding, BindingsMap
from textual.dom import DOMNode
from textual.keys import Keys as TextualKeys
from textual.keys import _character_to_key, key_to_character

from tfm.core.catalog import checkpoint_home
from tfm.tui import keymap

NEEDED = ("app.quit",)  # without a key for it there is no way out
_MAX_BYTES = 1 << 20
_MODIFIERS = ("ctrl", "alt", "shift", "super", "hyper", "meta")  # in the order in which they are written
_ALIASES = {
    "esc": "escape", "return": "enter", "pgup": "pageup", "page_up": "pageup", "pgdn": "pagedown",
    "page_down": "pagedown", "del": "delete", "ins": "insert", "bksp": "backspace", "bs": "backspace",
    "spacebar": "space", "control": "ctrl", "option": "alt", "cmd": "super",
    "←": "left", "→": "right", "↑": "up", "↓": "down",
}  # fmt: skip
_SAME = {"ctrl+i": "tab", "ctrl+m": "enter", "ctrl+left_square_bracket": "escape", "ctrl+h": "backspace",
         "ctrl+space": "ctrl+at"}  # fmt: skip
_NAMED = {
    *(key.value.rpartition("+")[2] for key in TextualKeys if not key.value.startswith("<")),
    *(f"f{n}" for n in range(1, 25)),
}
_ID_IN_BRACES = re.compile(r"\{([a-z_]+\.[a-z_]+)\}")
_PUNCTUATION = {_character_to_key(character): character for character in f"{string.punctuation} "}
_PUNCTUATION["space"] = " "


class Keys:
    """Which keys the bindings have now."""

    def __init__(self, changed: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self.changed = dict(changed or {})  # by id; an empty tuple: no key

    def of(self, binding: Binding) -> Binding:
        """The binding with its keys of now."""
        keys = self.changed.get(binding.id or "")
        return binding if keys is None else binding.with_key(",".join(keys))

    def name(self, id: str) -> str:
        """The first key of a binding as people write it; its id where it has none."""
        first = self.of(keymap.ALL[id]).key.split(",")[0]
        return keymap.key_name(first) if first else id

    def told(self, sentence: str) -> str:
        """A sentence with the keys of now in it: ``{chat.again} writes another``."""
        return _ID_IN_BRACES.sub(lambda m: self.name(m[1]) if m[1] in keymap.ALL else m[0], sentence)

    def apply(self, node: DOMNode) -> None:
        """Give a node that is about to be mounted its keys of now."""
        if not self.changed:
            return
        theirs = BindingsMap()
        for key, binding in node._bindings:
            if binding.id not in self.changed:
                theirs.key_to_bindings.setdefault(key, []).append(binding)
        for binding in {b.id: b for _, b in node._bindings if b.id in self.changed}.values():
            for key in self.changed[binding.id or ""]:
                theirs.key_to_bindings.setdefault(key, []).insert(0, binding.with_key(key))
        node._bindings = theirs


def keys_path() -> Path:
    return checkpoint_home() / "keys.toml"


def read_keys(path: Path) -> tuple[Keys, list[str]]:
    """The keys as the file has them, and what is wrong with it, a sentence each."""
    name = path.name
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES)
        import tomllib  # most people have no such file

        entries = dict(_flat(tomllib.loads(data.decode("utf-8"))))
    except FileNotFoundError:
        return Keys(), []
    except OSError as error:
        return Keys(), [f"{path} cannot be read: {error.strerror}; every key is as it comes."]
    except (ValueError, RecursionError) as error:
        return Keys(), [f"{name} is not TOML, so every key is as it comes: {error}."]
    problems: list[str] = []
    wanted: dict[str, tuple[str, ...]] = {}
    for id, value in entries.items():
        try:
            wanted[id] = _entry(id, value)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    keys, conflicts = _without_conflicts(wanted)
    return keys, problems + [f"{name}: {sentence}" for sentence in conflicts]


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """``temperature.raise`` without quotes is a table in a table to TOML, and means the same here."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _entry(id: str, value: object) -> tuple[str, ...]:
    """Raises ValueError with a sentence."""
    if id not in keymap.ALL:
        near = difflib.get_close_matches(id, keymap.ALL, n=1)
        hint = f"; did you mean {near[0]}?" if near else "; `tfm-tui keys` lists them all."
        raise ValueError(f"there is no binding {id!r}{hint}")
    if isinstance(value, str):
        value = [value] if value else []
    if not isinstance(value, list) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{id} takes a key or a list of keys, not {value!r}.")
    if not value and id in NEEDED:
        raise ValueError(f"{id} cannot be without a key: it is the way out.")
    keys: list[str] = []
    for text in value:
        key = normal_key(text)
        if key is None:
            raise ValueError(
                f"{text!r} is no key, so {id} keeps {_own(id)}; a key is a character or a name, "
                "such as f9, ctrl+k or alt+enter."
            )
        if keymap.ALL[id].priority and is_text(key):
            raise ValueError(
                f"{id} works while text is typed, so {text!r} cannot be its key; it keeps {_own(id)}."
            )
        keys.append(key)
    return tuple(dict.fromkeys(keys))


def normal_key(text: str) -> str | None:
    """A key as Textual names it, from what people write: ``Ctrl+K``, ``^K``, ``?``, ``PgUp``; else None."""
    text = text.strip() or text
    if len(text) == 2 and text[0] == "^":
        text = f"ctrl+{text[1]}"
    if len(text) == 1:
        return _character_key(text)
    *modifiers, last = (text[:-1] + "plus" if text.endswith("++") else text).split("+")
    modifiers = [_ALIASES.get(m.strip().lower(), m.strip().lower()) for m in modifiers]
    last = last.strip()
    if not last or len(set(modifiers)) != len(modifiers) or not set(modifiers) <= set(_MODIFIERS):
        return None
    if len(last) == 1:
        if modifiers == ["shift"] and last.isalpha():
            return _character_key(last.upper())
        last = _character_key(last.lower()) or ""
    else:
        last = _ALIASES.get(last.lower(), last.lower())
    if last not in _NAMED | _PUNCTUATION.keys() and not (last and key_to_character(last)):
        return None
    key = "+".join([*(m for m in _MODIFIERS if m in modifiers), last])
    return _SAME.get(key, key)


def _character_key(character: str) -> str | None:
    if character == " ":
        return "space"
    return None if character.isspace() or not character.isprintable() else _character_to_key(character)


def is_text(key: str) -> bool:
    """Does this key write a character into a text?"""
    return "+" not in key and (key in _PUNCTUATION or key_to_character(key) is not None)


# --------------------------------------------------------------------------- conflicts
def _without_conflicts(wanted: dict[str, tuple[str, ...]]) -> tuple[Keys, list[str]]:
    """Take back changes until no key means two things in one place; a sentence for each that was.

    All changes are tried together, so two bindings may swap keys. What comes later in the file gives way.
    """
    sentences: list[str] = []
    kept = dict(wanted)
    while clash := _clash(Keys(kept), list(kept)):
        id, other, key, place = clash
        sentences.append(f"{keymap.key_name(key)!r} means {other} in {place}, so {id} keeps {_own(id)}.")
        del kept[id]
    return Keys(kept), sentences


def _clash(keys: Keys, order: list[str]) -> tuple[str, str, str, str] | None:
    """A changed binding, what else has its key, that key, and where; of two changed ones the later."""
    found: list[tuple[str, str, str, str]] = []
    for place, inner, outer in _live_together():
        owners: dict[str, str] = {}
        for id in (*inner, *outer):
            for key in keys.of(keymap.ALL[id]).key.split(","):
                key = _normal(key)
                other = owners.setdefault(key, id)
                if not key or other == id or {other, id}.isdisjoint(order) or _share(other, id, key):
                    continue
                if other in inner and id in outer and any(_share(id, one, key) for one in inner):
                    continue  # the widget covers this key of the screen as it comes, whatever it does there
                everywhere = {other, id} <= {b.id for b in keymap.APP}
                later, first = (id, other) if _rank(order, id) > _rank(order, other) else (other, id)
                found.append((later, first, key, "every mode" if everywhere else place))
    return max(found, key=lambda clash: _rank(order, clash[0]), default=None)


def _live_together() -> Iterator[tuple[str, list[str], list[str]]]:
    """Bindings that can be pressed at the same time: where that is, the ids of a widget's own, and those of
    the screen and the app around it."""
    for place in keymap.PLACES:
        for widget in place.widgets or ((),):
            app = () if place.covers else keymap.APP
            around = [b.id for b in (*place.screen, *app) if b.id]
            yield place.title, [b.id for b in widget if b.id], around


def _rank(order: list[str], id: str) -> int:
    """Bindings that were not changed come first."""
    return order.index(id) if id in order else -1


def _share(one: str, other: str, key: str) -> bool:
    """Do both have this key as they come? Then the inner one acts, and that is meant so."""
    return all(key in _ids_keys(keymap.ALL[id]) for id in (one, other))


def _ids_keys(binding: Binding) -> set[str]:
    return {_normal(key) for key in binding.key.split(",")}


def _normal(key: str) -> str:
    return normal_key(key.strip()) or key.strip()


def _own(id: str) -> str:
    return keymap.key_names(keymap.ALL[id])


# --------------------------------------------------------------------------- the template
def template() -> str:
    """A keys.toml that changes nothing: every binding with the keys that it comes with."""
    lines = [
        "# Keys of tfm-tui. Remove the # in front of a line and change its keys: one, or a list of several.",
        '# A key is a character or a name, alone or behind ctrl+, alt+ or shift+: "k", "?", "f9", "alt+up".',
        "# An empty list leaves the binding without a key; the command palette still has it.",
    ]
    seen: set[str] = set()
    for title, group in groups():
        fresh = [binding for binding in group if binding.id and binding.id not in seen]
        if fresh:
            lines += ["", f"# ---- {title}"]
        for binding in fresh:
            seen.add(binding.id or "")
            keys = [f'"{_as_written(key.strip())}"' for key in binding.key.split(",")]
            value = keys[0] if len(keys) == 1 else f"[{', '.join(keys)}]"
            lines.append(f"# {f'{chr(34)}{binding.id}{chr(34)} = {value}':<46} # {binding.tooltip}")
    return "\n".join(lines) + "\n"


def groups() -> Iterator[tuple[str, tuple[Binding, ...]]]:
    """All bindings by where they work."""
    yield "everywhere", keymap.APP
    for place in keymap.PLACES:
        yield place.title, (*place.screen, *(b for widget in place.widgets for b in widget))


def _as_written(key: str) -> str:
    character = _PUNCTUATION.get(key, " ")
    return {" ": key, '"': '\\"', "\\": "\\\\"}.get(character, character)
