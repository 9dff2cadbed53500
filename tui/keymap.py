"""Every key of the app, in one place: what it is, what it does, what help says about it.

Bindings have ids, so that a file can rebind them; help, the command palette and the key line are
made from these same records.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from textual.binding import Binding


class Mode(NamedTuple):
    """One of the app's modes: a key, a name and the screen that it opens (imported when first opened)."""

    name: str
    title: str
    key: str
    screen: str  # "module:Class"


# The function keys are the modes' own for good, so a mode that is not here yet leaves its key free.
MODES = (
    Mode("translate", "Translate", "f1", "tfm.tui.screens.translate:TranslateScreen"),
    Mode("chat", "Chat", "f2", "tfm.tui.screens.chat:ChatScreen"),
    Mode("fill", "Fill", "f3", "tfm.tui.screens.fill:FillScreen"),
    Mode("lab", "Lab", "f4", "tfm.tui.screens.lab:LabScreen"),
    Mode("train", "Train", "f5", "tfm.tui.screens.train:TrainScreen"),
    Mode("models", "Models", "f6", "tfm.tui.screens.models:ModelsScreen"),
)


def _key(
    id: str, keys: str, action: str, label: str, help: str, *, priority: bool = False, show: bool = True
) -> Binding:
    return Binding(keys, action, label, id=id, tooltip=help, priority=priority, show=show)


APP = (
    *(
        _key(f"mode.{m.name}", m.key, f"mode('{m.name}')", m.title.lower(), f"Go to {m.title}", priority=True)
        for m in MODES
    ),
    _key("app.model", "ctrl+o", "choose_model", "model", "Choose the model", priority=True),
    _key("app.help", "question_mark", "help", "help", "This list of keys"),
    _key("app.help_typing", "f9", "help", "help", "The same, also while text is typed", priority=True),
    _key("app.palette", "ctrl+p", "command_palette", "commands", "Find a command by name", priority=True),
    _key("app.sign_in", "f12", "sign_in", "sign in", "Sign in to the engine's machine (with --host)",
         priority=True),
    _key("app.suspend", "ctrl+z", "suspend_process", "to the shell", "Go to the shell; fg comes back"),
    _key("app.leave", "q", "leave", "leave", "Leave; a running trainer goes on"),
    _key("app.quit", "ctrl+q", "leave", "leave", "Leave, from anywhere", priority=True),
)  # fmt: skip

SOURCE = (
    _key("source.submit", "enter", "submit", "translate", "Translate the text", priority=True),
    _key(
        "source.newline", "ctrl+j,shift+enter,alt+enter", "newline", "new line",
        "A new line; each line is translated by itself", priority=True,
    ),
)  # fmt: skip

TRANSLATE = (
    _key("translate.stop", "escape", "escape", "stop", "Stop, keeping what is there; else leave the input"),
    _key("translate.again", "ctrl+r", "again", "again", "Translate the same text again"),
    _key(
        "translate.continue",
        "ctrl+e",
        "go_on",
        "continue",
        "Go on with a translation that was broken off or stopped",
        priority=True,
    ),
    _key("translate.clear", "ctrl+l", "clear", "clear", "Empty the input for another text"),
    _key("translate.tokens", "tab", "switch_focus", "tokens", "Go between the input and the tokens"),
    _key("translate.edit", "i,enter", "edit", "edit", "Go back to the input"),
    _key("translate.older", "ctrl+up", "recall(-1)", "older", "Bring back an older translation"),
    _key("translate.newer", "ctrl+down", "recall(1)", "newer", "Bring back a newer translation"),
    _key("translate.confidence", "v", "confidence", "how sure", "Colour the text by how sure the model was"),
    _key("translate.copy", "y", "copy", "copy", "Copy the translation (OSC 52)"),
    _key("sampling.decode", "d", "decode", "beam/sample", "Change between beam search and sampling"),
    _key("beam.narrower", "w", "beam_width(-1)", "beam", "A narrower beam"),
    _key("beam.wider", "W", "beam_width(1)", "beam", "A wider beam"),
)

KNOBS = (
    _key("temperature.lower", "t", "turn('temperature', -1)", "temperature", "Lower the temperature"),
    _key("temperature.raise", "T", "turn('temperature', 1)", "temperature", "Raise the temperature"),
    _key("top_p.lower", "p", "turn('top_p', -1)", "top-p", "Lower top-p"),
    _key("top_p.raise", "P", "turn('top_p', 1)", "top-p", "Raise top-p"),
    _key("min_p.lower", "m", "turn('min_p', -1)", "min-p", "Lower min-p"),
    _key("min_p.raise", "M", "turn('min_p', 1)", "min-p", "Raise min-p"),
    _key("top_k.lower", "k", "turn('top_k', -1)", "top-k", "Lower top-k"),
    _key("top_k.raise", "K", "turn('top_k', 1)", "top-k", "Raise top-k"),
    _key("repetition.lower", "r", "turn('repetition', -1)", "repetition", "Lower the repetition penalty"),
    _key("repetition.raise", "R", "turn('repetition', 1)", "repetition", "Raise the repetition penalty"),
    _key("sampling.seed", "s", "new_seed", "seed", "Another seed: another draw with the same settings"),
    _key("sampling.type_seed", "S", "type_seed", "seed", "Type the seed"),
    _key(
        "sampling.stages", "o", "stages", "all stages", "Every stage of the sampling chain, and their order"
    ),
    _key("sampling.type", "equals_sign", "type_knob", "type", "Type any settings: temperature 0.85 top-k 40"),
    _key("sampling.presets", "O", "presets", "presets", "All presets; keep, rename and delete your own"),
    _key("preset.previous", "left_square_bracket", "preset(-1)", "preset", "The previous preset"),
    _key("preset.next", "right_square_bracket", "preset(1)", "preset", "The next preset"),
)

SESSION = (
    _key("session.new", "ctrl+n", "new_session", "new", "Begin a new session; this one stays saved"),
    _key("session.list", "c", "sessions", "sessions", "The saved sessions: open, name, delete"),
    _key("session.export", "ctrl+s", "export", "export",
         "Write the session to a Markdown, a JSON and an SVG file", priority=True),
    _key("session.copy", "Y", "copy_all", "copy all", "Copy the whole session as plain text (OSC 52)"),
    _key("find.open", "slash", "find", "find", "Find words in the session"),
    _key("find.next", "n", "find_next(1)", "next", "The next place where they stand"),
    _key("find.previous", "N", "find_next(-1)", "previous", "The place before"),
)  # fmt: skip

SESSIONS = (
    _key("sessions.new", "n", "new", "new", "Begin a new session"),
    _key("sessions.rename", "r", "rename", "name", "Give the session a name"),
    _key("sessions.delete", "d", "delete", "delete", "Delete the session for good; asks"),
    _key("sessions.close", "escape", "close", "back", "Back to what was on the screen"),
)

MESSAGE = (
    _key("message.send", "enter", "submit", "send", "Send it, or accept what was edited", priority=True),
    _key("message.newline", "ctrl+j,shift+enter,alt+enter", "newline", "new line", "Begin a new line",
         priority=True),
)  # fmt: skip

CHAT = (
    _key("chat.stop", "escape", "escape", "stop", "Stop and keep what is there; else leave the input"),
    _key("chat.again", "ctrl+r", "again", "again", "Another reply to the same message; the others stay"),
    _key("chat.continue", "ctrl+e", "go_on", "continue", "Go on with a reply that was cut, stopped or edited",
         priority=True),
    _key("chat.turns", "tab", "switch_focus", "turns", "Go between the message and the conversation"),
    _key("chat.write", "i,enter", "write", "write", "Go to the message"),
    _key("chat.edit", "e", "edit", "edit", "Edit the chosen turn; the old version stays"),
    _key("chat.older_version", "comma", "version(-1)", "version", "The version before this one"),
    _key("chat.newer_version", "full_stop", "version(1)", "version", "The version after this one"),
    _key("version.older", "f7", "version(-1)", "version", "The version before this one", priority=True),
    _key("version.newer", "f8", "version(1)", "version", "The version after this one", priority=True),
    _key("chat.fewer", "minus", "replies(-1)", "replies", "Write fewer replies at once"),
    _key("chat.more", "plus", "replies(1)", "replies", "Write more replies at once, to pick from"),
    _key("chat.setup", "ctrl+t", "setup", "system prompt", "System prompt, stop strings, length of a reply",
         priority=True),
    _key("chat.older", "ctrl+up", "recall(1)", "older", "The conversation before this one"),
    _key("chat.newer", "ctrl+down", "recall(-1)", "newer", "The conversation after this one"),
    _key("chat.confidence", "v", "confidence", "how sure", "Colour replies by how sure the model was"),
    _key("chat.copy", "y", "copy", "copy", "Copy the chosen turn (OSC 52)"),
    _key("chat.pull", "ctrl+g", "pull", "get SmolLM2", "Fetch SmolLM2, a small model to chat with",
         priority=True),
)  # fmt: skip

TURNS = (
    _key("turns.previous", "up", "move(-1)", "turn", "The turn before this one"),
    _key("turns.next", "down", "move(1)", "turn", "The turn after this one"),
    *(
        _key(f"turns.take{n}", str(n), f"take({n})", "take", "Put this rival there and go on from it")
        for n in range(1, 10)
    ),
)

FILL_TEXT = (
    _key("text.done", "enter", "submit", "masks", "Go to the masks", priority=True),
    _key("text.newline", "ctrl+j,shift+enter,alt+enter", "newline", "new line", "Begin a new line",
         priority=True),
)  # fmt: skip

FILL = (
    _key("fill.mask", "ctrl+t", "mask", "mask the word", "Mask the word under the cursor, or show it again",
         priority=True),
    _key("fill.stop", "escape", "escape", "leave", "Stop drawing; else leave the text"),
    _key("fill.again", "ctrl+r", "again", "draw", "Draw a word for every mask that you took none for"),
    _key("fill.gaps", "tab", "switch_focus", "masks", "Go between the text and its masks"),
    _key("fill.write", "i", "write", "edit", "Go back to the text"),
    _key("fill.order", "a", "order", "order", "Draw the surest first, from left to right, or all at once"),
    _key("fill.open_all", "N", "open_all", "open all", "Take the words out of all masks again"),
    _key("fill.use", "u", "use", "use", "Make the filled text the text"),
    _key("fill.clear", "ctrl+l", "clear", "clear", "Empty the text", priority=True),
    _key("fill.copy", "y", "copy", "copy", "Copy the filled text (OSC 52)"),
)  # fmt: skip

GAPS = (
    _key("gaps.previous", "left,h", "walk(-1)", "mask", "The mask before this one"),
    _key("gaps.next", "right,l", "walk(1)", "mask", "The mask after this one"),
    _key("gaps.up", "up", "choose(-1)", "candidate", "The candidate above"),
    _key("gaps.down", "down", "choose(1)", "candidate", "The candidate below"),
    _key("gaps.enter", "enter", "take(0)", "take", "Put the chosen candidate into the mask"),
    *(
        _key(f"gaps.take{n}", str(n), f"take({n})", "take", "Put the candidate of this rank into the mask")
        for n in range(1, 10)
    ),
    _key("gaps.open", "0,backspace", "open", "open", "Take the word out of this mask again"),
)

LAB_TEXT = (
    _key("lab_text.look", "enter", "submit", "look at it", "Let the model read the text, token by token",
         priority=True),
    _key("lab_text.newline", "ctrl+j,shift+enter,alt+enter", "newline", "new line", "Begin a new line",
         priority=True),
)  # fmt: skip

LAB = (
    _key("lab.leave", "escape", "escape", "tokens", "Leave the text"),
    _key("lab.tokens", "tab", "switch_focus", "tokens", "Go on to the next text, then to the tokens"),
    _key("lab.write", "i,enter", "write", "edit", "Go back to the text"),
    _key("lab.copy", "y", "copy", "copy", "Copy the tokens with their figures, as a table (OSC 52)"),
)

LOOK = (
    _key("look.previous", "up", "move(-1)", "token", "The token before this one"),
    _key("look.next", "down", "move(1)", "token", "The token after this one"),
    _key(
        "look.next_surprise", "n", "surprise(1)", "surprise", "The next token that was not the first choice"
    ),
    _key(
        "look.previous_surprise",
        "N",
        "surprise(-1)",
        "surprise",
        "The one before that was not the first choice",
    ),
    _key("look.page_up", "pageup", "page(-1)", "page", "One page of tokens up"),
    _key("look.page_down", "pagedown", "page(1)", "page", "One page of tokens down"),
    _key("look.first", "home", "edge(False)", "first", "The first token"),
    _key("look.last", "end", "edge(True)", "last", "The last token"),
)

TOKENS = (
    _key("tokens.previous", "left,h", "walk(-1)", "token", "The token before this one"),
    _key("tokens.next", "right,l", "walk(1)", "token", "The token after this one"),
    _key("tokens.first", "home", "edge(False)", "first", "The first token"),
    _key("tokens.last", "end", "edge(True)", "last", "The last token"),
)

STAGES = (
    _key("stages.up", "up,k", "move(-1)", "choose", "The setting above"),
    _key("stages.down", "down,j", "move(1)", "choose", "The setting below"),
    _key("stages.page_up", "pageup", "move(-2)", "choose", "Some settings further up"),
    _key("stages.page_down", "pagedown", "move(2)", "choose", "Some settings further down"),
    _key("stages.first", "home", "edge(False)", "first", "The first setting"),
    _key("stages.last", "end", "edge(True)", "last", "The last setting"),
    _key("stages.lower", "left,h", "turn(-1)", "turn", "Lower it"),
    _key("stages.raise", "right,l", "turn(1)", "turn", "Raise it"),
    _key("stages.lower_much", "shift+left,H", "turn(-5)", "turn", "Lower it by five steps"),
    _key("stages.raise_much", "shift+right,L", "turn(5)", "turn", "Raise it by five steps"),
    _key("stages.exact", "enter", "exact", "type a value", "Type the exact value, or open the list"),
    _key("stages.neutral", "0,backspace", "neutral", "neutral", "Back to its neutral value: it does nothing"),
    _key("stages.as_preset", "u", "back_to_preset", "as in the preset", "Back to its value in the preset"),
    _key("stages.reset", "N", "reset", "all neutral", "Every setting back to neutral"),
    _key("stages.leave_out", "space", "leave_out", "leave out", "Leave the stage out, or take it in again"),
    _key("stages.earlier", "less_than_sign,shift+up,K", "shift_stage(-1)", "move", "The stage runs earlier"),
    _key("stages.later", "greater_than_sign,shift+down,J", "shift_stage(1)", "move", "The stage runs later"),
    _key("stages.order", "c", "order", "order", "The order of llama.cpp, or of transformers"),
    _key("stages.view", "v", "view", "view", "Show everything, what is on, or what changed"),
    _key("stages.find", "slash", "find", "find", "Find a setting by its name or rule"),
    _key("stages.preset_previous", "left_square_bracket", "preset(-1)", "preset", "The previous preset"),
    _key("stages.preset_next", "right_square_bracket", "preset(1)", "preset", "The next preset"),
    _key("stages.save", "w", "save", "save", "Keep these settings as a preset"),
    _key("stages.close", "escape,o,q", "close", "back", "Close this list"),
)

BIASES = (
    _key("biases.up", "up,k", "move(-1)", "choose", "The token above"),
    _key("biases.down", "down,j", "move(1)", "choose", "The token below"),
    _key("biases.add", "a", "add", "add", "Add a token, by its text or its id"),
    _key("biases.lower", "left,h", "turn(-1)", "turn", "Lower its bias"),
    _key("biases.raise", "right,l", "turn(1)", "turn", "Raise its bias"),
    _key("biases.exact", "enter", "exact", "type", "Type its bias"),
    _key("biases.ban", "b", "ban", "ban", "Ban the token, or allow it again"),
    _key("biases.take_out", "x,delete", "take_out", "take out", "Take the token out of the list"),
    _key("biases.close", "escape,q", "dismiss", "back", "Close this list"),
)

PRESETS = (
    _key("presets.up", "up,k", "move(-1)", "choose", "The preset above"),
    _key("presets.down", "down,j", "move(1)", "choose", "The preset below"),
    _key("presets.take", "enter", "take", "take", "Take its settings"),
    _key("presets.save", "w", "save", "save as", "Keep the settings of now as a preset"),
    _key("presets.rename", "r", "rename", "rename", "Give it another name"),
    _key("presets.delete", "x,delete", "delete", "delete", "Delete it, after a question"),
    _key("presets.close", "escape,O,q", "close", "back", "Close this list"),
)

TRAIN = (
    _key("train.back", "escape", "back", "all runs", "Back to the list of runs; the run goes on"),
    _key("train.refresh", "ctrl+r", "refresh_runs", "refresh", "Read the list of runs again"),
)

RUNS = (
    _key("train.new", "n", "new_run", "new run", "Start a run from a config file"),
    _key("train.open", "enter", "open", "watch", "Watch the chosen run, the marked ones over it"),
    _key("train.up", "up,k", "move(-1)", "choose", "The run above"),
    _key("train.down", "down,j", "move(1)", "choose", "The run below"),
    _key("train.mark", "space", "mark", "mark", "Mark the run, to see several in one picture"),
)

RUN = (
    _key("train.older", "comma", "sample(-1)", "older", "Older samples"),
    _key("train.newer", "full_stop", "sample(1)", "newer", "Newer samples"),
    _key("train.text_up", "up,k", "scroll_text(-1)", "scroll", "Scroll the samples up"),
    _key("train.text_down", "down,j", "scroll_text(1)", "scroll", "Scroll the samples down"),
    _key("curves.choose", "o", "choose_curves", "curves", "Choose which curves are shown"),
    _key("curves.runs", "a", "overlay", "other runs", "Put other runs over this one"),
    _key("curves.full", "f", "full", "one curve", "One curve in full, the next one, then all again"),
    _key("curves.split", "v", "split", "train/validation", "Training and validation, or one of them"),
    _key("curves.axis", "x", "axis", "axis", "Draw over steps, over time, or over tokens"),
    _key("curves.log", "y", "log", "log", "A logarithmic y axis, where it makes sense"),
    _key("curves.rougher", "m", "smooth(-1)", "smooth", "Smooth the training curves less"),
    _key("curves.smoother", "M", "smooth(1)", "smooth", "Smooth the training curves more"),
    _key("curves.closer", "plus,equals_sign", "zoom(1)", "zoom", "Zoom in on the newest half"),
    _key("curves.farther", "minus", "zoom(-1)", "zoom", "Zoom out"),
    _key("curves.left", "left,h", "pan(-1)", "pan", "Look further back"),
    _key("curves.right", "right,l", "pan(1)", "pan", "Look further on"),
    _key("curves.newest", "end", "newest", "newest", "Follow the newest point again"),
    _key("curves.whole", "0,home", "whole", "all of it", "The whole run in view"),
    _key("curves.export", "ctrl+s", "export", "export", "Write the curves to a CSV and an SVG file"),
    _key(
        "train.talk", "c", "talk", "talk to it", "Load the newest checkpoint and talk to it; the run goes on"
    ),
    _key("train.detach", "d", "detach", "detach", "Leave the app; the run goes on"),
)

STEER = (
    _key(
        "train.pause", "space", "pause", "pause", "Pause the run, or let it go on; a stopped one is resumed"
    ),
    _key("train.save", "S", "save", "save", "Save a checkpoint now"),
    _key("train.rate", "L", "learning_rate", "rate", "Another learning rate for the next steps"),
    _key("train.evaluate", "e", "evaluate", "evaluate", "Evaluate now"),
    _key("train.bookmark", "b", "bookmark", "bookmark", "Keep this point under a name"),
    _key("train.rollback", "r", "roll_back", "go back", "Go back to a checkpoint or a bookmark"),
    _key("train.fork", "F", "fork", "fork", "A new run from a checkpoint of this one"),
    _key("train.prompts", "p", "prompts", "prompts", "Edit the fixed prompts of the samples"),
    _key("train.stop", "Q", "stop_run", "stop (saves)", "Stop the run; it saves a checkpoint first"),
)

MODELS = (
    _key("models.use", "enter", "use", "use", "Use the model, in the mode that it is good for"),
    _key("models.load", "l", "load", "load", "Load the model into memory"),
    _key("models.unload", "u", "unload", "unload", "Give its memory back"),
    _key("models.verify", "v", "verify", "verify", "Check its files against the manifest, and every number"),
    _key(
        "models.compare", "c", "compare", "compare", "Compare its config with another one's, field by field"
    ),
    _key("models.import", "i", "import", "import", "Import a Hugging Face folder or a GGUF file"),
    _key("models.pull", "g", "pull", "get", "Get a published model: SmolLM2, or one of the hub"),
    _key("models.delete", "x,delete", "delete", "delete", "Delete the model, if it is your own; asks first"),
    _key("models.card", "tab", "switch_focus", "card", "Go between the list and the card"),
    _key("models.stop", "escape", "escape", "cancel", "Call off what is going on; else back to the list"),
    _key("models.refresh", "ctrl+r", "refresh", "refresh", "Look again which models there are"),
)

MODEL_LIST = (
    _key("models.up", "up,k", "move(-1)", "choose", "The model above"),
    _key("models.down", "down,j", "move(1)", "choose", "The model below"),
    _key("models.page_up", "pageup", "page(-1)", "page", "A page up in the list"),
    _key("models.page_down", "pagedown", "page(1)", "page", "A page down in the list"),
    _key("models.first", "home", "move(-1000000)", "first", "The first model"),
    _key("models.last", "end", "move(1000000)", "last", "The last model"),
)

MODEL_PAGE = (
    _key("card.up", "up,k", "scroll_up", "scroll", "A line up"),
    _key("card.down", "down,j", "scroll_down", "scroll", "A line down"),
    _key("card.page_up", "pageup", "page_up", "page", "A page up"),
    _key("card.page_down", "pagedown,space", "page_down", "page", "A page down"),
    _key("card.first", "home", "scroll_home", "beginning", "To the beginning"),
    _key("card.last", "end", "scroll_end", "end", "To the end"),
)

_NAMES = {
    "escape": "Esc", "enter": "Enter", "tab": "Tab", "question_mark": "?", "comma": ",", "full_stop": ".",
    "left": "←", "right": "→", "up": "↑", "down": "↓", "left_square_bracket": "[",
    "right_square_bracket": "]", "space": "Space", "home": "Home", "end": "End", "backspace": "Bksp",
    "slash": "/", "pageup": "PgUp", "pagedown": "PgDn", "plus": "+", "minus": "-", "equals_sign": "=",
    "less_than_sign": "<", "greater_than_sign": ">", "delete": "Del",
}  # fmt: skip


def key_name(key: str) -> str:
    """One key as people write it: ``ctrl+r`` is ``^R``."""
    *modifiers, last = key.split("+")
    name = _NAMES.get(last, last.upper() if last[0] == "f" and last[1:].isdigit() else last)
    if "ctrl" in modifiers:
        modifiers.remove("ctrl")
        name = "^" + (name.upper() if len(name) == 1 else name)
    return "+".join([*(m.capitalize() for m in modifiers), name])


def key_names(binding: Binding) -> str:
    """All keys of a binding: ``h ←``. Nothing where it was left without one."""
    return " ".join(key_name(key.strip()) for key in binding.key.split(",") if key)


class Place(NamedTuple):
    """Where keys work together: a screen's own, and those of the widgets in it that can have the focus.

    The app's own work in every place but those that cover it.
    """

    title: str  # after "in": where a person is told that a key works
    screen: tuple[Binding, ...]
    widgets: tuple[tuple[Binding, ...], ...] = ()
    covers: bool = False  # an overlay: nothing below it acts


# Every group above is in one of these: they are what can be rebound, and what conflicts are looked for in.
PLACES = (
    Place("translate", (*TRANSLATE, *SESSION, *KNOBS), (SOURCE, TOKENS)),
    Place("chat", (*CHAT, *SESSION, *KNOBS), (MESSAGE, TURNS, TOKENS)),
    Place("fill", (*FILL, *KNOBS), (FILL_TEXT, GAPS)),
    Place("lab", (*LAB, *KNOBS), (LAB_TEXT, LOOK)),
    Place("train", TRAIN, (RUNS, (*RUN, *STEER))),
    Place("models", MODELS, (MODEL_LIST, MODEL_PAGE)),
    Place("the list of stages", STAGES, covers=True),
    Place("the list of biases", BIASES, covers=True),
    Place("the list of presets", PRESETS, covers=True),
    Place("the list of sessions", SESSIONS, covers=True),
)
ALL: dict[str, Binding] = {
    binding.id: binding
    for group in (APP, *(g for place in PLACES for g in (place.screen, *place.widgets)))
    for binding in group
    if binding.id
}


def by_id(ids: Iterable[str]) -> list[Binding]:
    """The bindings with these ids, in this order, with the keys that they come with."""
    return [ALL[i] for i in ids]
