"""The app: modes, one engine, and a terminal that is left as it was found."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, cast

import msgspec
from rich.style import Style
from textual import constants
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.css.styles import RulesMap
from textual.dom import DOMNode
from textual.screen import Screen
from textual.theme import Theme
from textual.widget import Widget
from textual.widgets import Input, TextArea

from tfm.core.engine import protocol
from tfm.tui import clipboard, keymap, themes
from tfm.tui.client import LOCAL_ENGINE, EngineClient, EngineLost, EngineProblem
from tfm.tui.keys_file import keys_path, read_keys
from tfm.tui.palette import palette, unsure
from tfm.tui.screens.base import ModeScreen
from tfm.tui.session import TASKS, Session
from tfm.tui.settings import Settings, SettingsFile
from tfm.tui.steady_stylesheet import SteadyStylesheet
from tfm.tui.terminal_app import TerminalApp
from tfm.tui.widgets.bars import FirstHint

if TYPE_CHECKING:
    from tfm.tui.remote import Box

HANGUP_CHECK = 1.0  # seconds between looks at whether the terminal is still there
BOX_EVERY = 5.0  # seconds between looks at the engine's machine
BOX_COLUMNS = 100  # of a terminal in whose header its figures may have room
LAST_RESORT = 2.5  # seconds that an orderly exit may take once the terminal is gone


_THEMES = {
    "tfm-dark": "Dark",
    "tfm-light": "Light",
    "tfm-contrast": "High contrast, dark",
    "tfm-contrast-light": "High contrast, light",
    "tfm-16": "The terminal's own colours",
}


def _factory(path: str) -> Callable[[], Screen[None]]:
    """A mode's screen, imported when the mode is first opened."""

    def make() -> Screen[None]:
        module, name = path.split(":")
        return cast("Screen[None]", getattr(importlib.import_module(module), name)())

    return make


class TfmApp(TerminalApp):
    CSS_PATH = "app.tcss"
    TITLE = "tfm"
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.APP]
    MODES = {mode.name: _factory(mode.screen) for mode in keymap.MODES}
    DEFAULT_MODE = keymap.MODES[0].name
    ENABLE_COMMAND_PALETTE = True

    def __init__(
        self,
        engine: Sequence[str] = LOCAL_ENGINE,
        *,
        box: Box | None = None,
        model: str | None = None,
        mode: str | None = None,
        run: str | None = None,
    ) -> None:
        super().__init__()
        self._palette: dict[str, Style] = {}
        self._palette_of = ""  # the theme that it was made for
        self._asked = False  # the person to sign in to the box
        self._settings = SettingsFile()
        if mode is None and model is None and self.settings.mode in self.MODES:
            mode = self.settings.mode
        self._first_mode = mode
        self.box_figures: protocol.Box | None = None  # of the engine's machine, a few seconds old
        self.first_run = run  # a training run to watch at once
        self.keys, self._key_problems = read_keys(keys_path())
        client = EngineClient(engine, box=box, on_change=self._engine_changed, told=self.keys.told)
        first = mode if mode in TASKS else self.DEFAULT_MODE  # whose model was named
        self.sessions = {
            name: Session(client, model if name == first else None, self._session_changed, task)
            for name, task in TASKS.items()
        }
        for name, session in self.sessions.items():
            session.remembered = self.settings.models.get(name, "")
        self.session = self.sessions[first]
        self.keys.apply(self)
        self._saving = threading.Lock()
        self._save_failed = False
        for theme in themes.ALL:
            self.register_theme(theme)
        self._choose_theme(self.settings.theme)
        self.stylesheet = SteadyStylesheet(variables=self.get_css_variables())
        self._move()

    # ------------------------------------------------------------------ start and end
    def on_mount(self) -> None:
        self.theme_changed_signal.subscribe(self, self._theme_chosen)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._go, 128 + number)
        if not self.is_headless:
            self.set_interval(HANGUP_CHECK, self._check_terminal)
        self.set_interval(BOX_EVERY, self._look_at_box)
        if self._first_mode and self._first_mode != self.DEFAULT_MODE:
            self.switch_mode(self._first_mode)
        self.call_after_refresh(self._complain)
        self.call_after_refresh(_collect_from_here)
        if self._first_mode != "train":  # which asks for no model until one is talked to
            self.call_after_refresh(self.prepare, self.session)  # the first paint waits for nothing

    def _complain(self) -> None:
        """Say what is wrong with the user's own files, once there is a screen to say it on."""
        for sentence in (*self._settings.problems, *self._key_problems):
            self.notify(sentence, severity="warning", markup=False, timeout=15)

    def prepare(self, session: Session) -> None:
        """Have a mode's model loaded, in its own time."""
        self.run_worker(self._prepare(session), group="load")

    async def _prepare(self, session: Session) -> None:
        try:
            await session.ready()
        except EngineProblem as problem:
            self._session_changed()  # the sentence is in session.problem, and the screen shows it
            if isinstance(problem, EngineLost) and problem.kind == "person" and not self._asked:
                self.action_sign_in()

    def _check_terminal(self) -> None:
        """With the terminal gone, reading it spins for ever: leave instead."""
        watcher = select.poll()
        watcher.register(0, 0)  # POLLHUP and POLLERR are always reported
        if any(event & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, event in watcher.poll(0)):
            self._go(128 + signal.SIGHUP)

    def _go(self, status: int) -> None:
        """Leave now. If the orderly way hangs on a dead terminal, leave all the same."""
        last = threading.Timer(LAST_RESORT, os._exit, (status,))
        last.daemon = True
        last.start()
        for screen in (screen for stack in self._screen_stacks.values() for screen in stack):
            if isinstance(screen, ModeScreen):
                screen.keep()  # now: the orderly way may take longer than there is time
        self.exit(status, return_code=status)

    async def action_leave(self) -> None:
        self.exit(0)

    async def on_unmount(self) -> None:
        self.leave_pen()
        await asyncio.sleep(min(self.pace.answer_in(time.monotonic()), 0.3))  # not into the shell's prompt
        self._save_settings()
        client = self.session.client
        await client.close()
        if client.box is not None:
            client.box.sign_out()

    # ------------------------------------------------------------------ what is remembered
    @property
    def settings(self) -> Settings:
        """What is remembered from one start to the next."""
        return self._settings.settings

    def remember(self, settings: Settings) -> None:
        """Other settings: in force at once, on disk soon."""
        self._settings.change(settings)
        if self._settings.unsaved and self._running:
            self.run_worker(self._save_settings, group="settings", thread=True, exit_on_error=False)

    def _save_settings(self) -> None:
        """The disk may be slow, so another thread calls this, but for the last time."""
        with self._saving:
            try:
                self._settings.save()
            except OSError as error:
                if not self._save_failed:
                    self._save_failed = True
                    sentence = f"Settings cannot be saved in {self._settings.path}: {error.strerror}."
                    self.notify(sentence, severity="warning", markup=False)

    # ------------------------------------------------------------------ engine
    def _engine_changed(self, state: str) -> None:
        if state != "ready":
            self.box_figures = None
        for session in self.sessions.values():
            session.engine_changed(state)
        if state == "ready" and self.session.client.starts > 1 and self.session.client.box is not None:
            self.prepare(self.shown_session)  # it came back by itself: so does the model

    @property
    def shown_session(self) -> Session:
        """That of the mode on the screen."""
        return self.sessions.get(self.current_mode, self.session)

    def action_sign_in(self) -> None:
        """Give the terminal to ssh, so that it can ask for a password or show a host key."""
        box = self.session.client.box
        if box is None:
            self.notify("The engine is on this machine: there is nothing to sign in to.", markup=False)
        elif self.session.client.welcome is not None:
            self.notify(f"You are connected to {box.name}.", markup=False)
        elif not self.is_headless:
            self._asked = True
            with self.suspend():
                done = box.sign_in()
            if done:
                self.prepare(self.shown_session)
            else:
                self.notify(
                    f"Not signed in to {box.name}: {self.keys.name('app.sign_in')} tries again.", markup=False
                )

    def _look_at_box(self) -> None:
        """Memory and cards for the header: only of an engine that is up, and where there is room for them."""
        if self.session.client.welcome is not None and self.size.width >= BOX_COLUMNS:
            self.run_worker(self._ask_box(), group="box", exclusive=True)

    async def _ask_box(self) -> None:
        with contextlib.suppress(EngineProblem):  # whoever works with the engine will hear of it
            self.box_figures = await self.session.client.ask(protocol.BoxStats(id=0), protocol.Box)
            self._session_changed()

    def _session_changed(self) -> None:
        for screen in self.screen_stack if self._running else ():
            if isinstance(screen, ModeScreen):
                screen.refresh_status()

    # ------------------------------------------------------------------ colours
    def _choose_theme(self, name: str) -> None:
        """A theme by name, which is not what a person chose now; the dark one where there is no such."""
        self._given_theme = self.theme = name if name in self.available_themes else themes.DARK.name

    def adapt_to_terminal(self) -> None:
        """Where nobody chose a theme and the terminal has sixteen colours, take those."""
        if self.theme == themes.DARK.name and self.console.color_system == "standard":
            self._choose_theme(themes.SIXTEEN.name)

    def _move(self) -> None:
        """Let things slide and blink, or not: the setting decides, and TFM_REDUCED_MOTION over it."""
        wish = os.environ.get("TFM_REDUCED_MOTION", "")
        still = wish != "0" if wish else self.settings.reduced_motion
        self.animation_level = "none" if still else constants.TEXTUAL_ANIMATIONS

    def _change_motion(self) -> None:
        still = not self.settings.reduced_motion
        self.remember(msgspec.structs.replace(self.settings, reduced_motion=still))
        self._move()
        self.notify(f"Reduced motion is {'on' if still else 'off'}.", markup=False)

    def _theme_chosen(self, theme: Theme) -> None:
        if theme.name != self._given_theme:  # else nobody chose it
            self._given_theme = ""
            self.remember(msgspec.structs.replace(self.settings, theme=theme.name))

    @property
    def palette(self) -> dict[str, Style]:
        """The looks of spans in the theme of the moment."""
        if self._palette_of != self.theme:
            few = self.native_ansi_color or self.console.color_system == "standard"
            shade = "dark" if self.current_theme.dark else "light"
            looks = unsure("none" if self.no_color else "few" if few else shade)
            self._palette = palette(self.get_css_variables()) | looks
            self._palette_of = self.theme
        return self._palette

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Our own variables, for themes that do not know them."""
        ours = themes.DARK if self.current_theme.dark else themes.LIGHT
        return {name: ours.variables[name] for name in ("quiet", "faint", "line")}

    # ------------------------------------------------------------------ actions
    def greet(self) -> None:
        """The person found one of the ways that the first-run hint shows: it goes, for good."""
        if not self.settings.welcomed:
            self.remember(msgspec.structs.replace(self.settings, welcomed=True))
            for screen in self.screen_stack:
                for hint in screen.query(FirstHint):
                    hint.remove()

    def on_source_input_submitted(self) -> None:
        self.greet()

    def action_command_palette(self) -> None:
        self.greet()
        super().action_command_palette()

    def action_mode(self, name: str) -> None:
        self.greet()
        if name != self.current_mode and not self.screen.is_modal:
            if name == "lab":
                self._bring_to_lab(self.shown_session)
            self.switch_mode(name)
            self.remember(msgspec.structs.replace(self.settings, mode=name))
            if name in self.sessions:
                self.prepare(self.sessions[name])

    def _bring_to_lab(self, session: Session) -> None:
        """The lab begins with the model that was at hand; it keeps the one that was chosen there."""
        lab = self.sessions["lab"]
        if lab.wanted is None and lab.loaded is None and session.info is not None:
            lab.wanted = session.info.name

    def copy_to_clipboard(self, text: str) -> None:
        super().copy_to_clipboard(text)
        if clipboard.inside_tmux():
            self.run_worker(clipboard.into_tmux(text), group="copy", exit_on_error=False)

    def action_help_quit(self) -> None:
        """^C where nothing is selected that it could copy, out of habit: stop what is being made, or tell
        how to leave."""
        if isinstance(self.screen, ModeScreen) and self.screen.running:
            self.call_later(self.run_action, "escape", self.screen)
        else:
            self.notify(self.keys.told("{app.quit} leaves; what is here is saved."), markup=False)

    def action_help(self) -> None:
        from tfm.tui.screens.help import HelpScreen

        self.greet()
        if isinstance(self.screen, HelpScreen):
            self.pop_screen()
        elif not self.screen.is_modal or self.screen_has_keys(self.screen):
            self.push_screen(HelpScreen(self.key_groups(self.screen)))

    async def action_choose_model(self) -> None:
        if not self.screen.is_modal:
            self.run_worker(self._choose_model(), group="choose", exclusive=True)

    async def _choose_model(self) -> None:
        from tfm.tui.screens.model_choice import describe
        from tfm.tui.screens.prompt import Choice

        session = self.screen.session if isinstance(self.screen, ModeScreen) else self.session
        try:
            models = [m for m in await session.list_models() if session.task.accepts(m) or m.problem]
            if not models:
                self.notify(self.keys.told(session.task.missing), markup=False)
                return
            chosen = session.info.name if session.info else None
            name = await self.push_screen_wait(Choice("Model", [describe(m) for m in models], chosen))
            if name is not None:
                await session.choose(name)
                mode = next(name for name, its in self.sessions.items() if its is session)
                chosen_models = {**self.settings.models, mode: name}
                self.remember(msgspec.structs.replace(self.settings, models=chosen_models))
        except EngineProblem as problem:
            self.notify(str(problem), severity="error", markup=False, timeout=15)

    # ------------------------------------------------------------------ keys, help, palette
    def live_bindings(self, screen: Screen[object]) -> Iterable[tuple[DOMNode, Binding]]:
        """Our bindings that work on this screen, each with the node that carries it out."""
        seen: set[str] = set()
        for node in (*screen.walk_children(), screen, self):
            for binding in node.BINDINGS:
                if isinstance(binding, Binding) and binding.id and binding.id not in seen:
                    seen.add(binding.id)
                    yield node, self.keys.of(binding)

    def screen_has_keys(self, screen: Screen[object]) -> bool:
        """Has this screen, or a widget in it, bindings of its own that help could list?"""
        return any(node is not self for node, _ in self.live_bindings(screen))

    def _register(
        self,
        parent: DOMNode,
        *widgets: Widget,
        before: int | None = None,
        after: int | None = None,
        cache: dict[tuple[object, ...], RulesMap] | None = None,
    ) -> list[Widget]:
        """Every widget and every screen comes through here before it sees a key."""
        for widget in widgets:
            self.keys.apply(widget)
            if self.animation_level == "none" and isinstance(widget, Input | TextArea):
                widget.cursor_blink = False
        return super()._register(parent, *widgets, before=before, after=after, cache=cache)

    def key_groups(self, screen: Screen[object]) -> list[tuple[str, list[Binding]]]:
        """The same by where they work: the screen's first, then its widgets', then everywhere."""
        groups: dict[str, list[Binding]] = {}
        for node, binding in self.live_bindings(screen):
            if isinstance(node, App):
                title = "Everywhere"
            elif isinstance(node, Screen):
                title = "Here"
            else:
                title = getattr(node, "KEYS_TITLE", "Here")
            groups.setdefault(title, []).append(binding)
        last = "Everywhere"
        order = ["Here", *(title for title in groups if title not in ("Here", last)), last]
        return [(title, groups[title]) for title in order if title in groups]

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        for node, binding in self.live_bindings(screen):
            if binding.id == "app.palette":
                continue
            keys = keymap.key_names(binding)
            help = binding.tooltip or binding.description
            act = partial(self.run_action, binding.action, node)
            yield SystemCommand(help, f"{keys}  {binding.id}".strip(), act)
        yield SystemCommand("Colours", "Choose a theme", self.action_change_theme)
        for name, what in _THEMES.items():
            yield SystemCommand(f"Colours: {name}", what, partial(setattr, self, "theme", name))
        motion = "Let things slide and blink" if self.settings.reduced_motion else "Nothing slides or blinks"
        yield SystemCommand("Reduced motion", motion, self._change_motion)
        yield SystemCommand("Redraw", "Paint the whole screen anew", self.action_redraw)
        yield SystemCommand("Screenshot", "Save an SVG of the screen", self.deliver_screenshot)


def _collect_from_here() -> None:
    """The first paint is done: garbage is collected again, and never among what stays for good."""
    gc.freeze()
    gc.enable()


def run_app(
    host: str | None = None,
    model: str | None = None,
    mode: str | None = None,
    run: str | None = None,
    remote_command: str | None = None,
) -> int:
    """Open the app in this terminal and return its exit status; 2 with a sentence where it cannot."""
    problem = _why_not(mode)
    if problem:
        print(f"tfm-tui: {problem}", file=sys.stderr)
        return 2
    box = None
    if host is not None:
        from tfm.tui.remote import box_of

        box = box_of(host, remote_command)
    elif mode is None and model is not None:
        mode = mode_for(model)
    app = TfmApp(box=box, model=model, mode="train" if run else mode, run=run)
    app.adapt_to_terminal()
    status = app.run()
    return app.return_code or status or 0


def mode_for(model: str) -> str | None:
    """The mode that a model is good for; None: the app itself will say what is wrong with it."""
    from tfm.core.catalog import describe, find_checkpoint

    try:
        info = describe(find_checkpoint(model))
    except ValueError:
        return None
    return next((name for name, task in TASKS.items() if task.accepts(info)), None)


def _why_not(mode: str | None) -> str:
    """One sentence, or nothing."""
    names = [m.name for m in keymap.MODES]
    if mode is not None and mode not in names:
        return f"there is no mode {mode!r}; the modes are {', '.join(names)}"
    if not (os.isatty(0) and os.isatty(1)):
        return "the app needs a terminal; `tfm-tui --plain` and `tfm-tui translate` work in a pipe"
    if os.environ.get("TERM", "") in ("", "dumb", "unknown"):
        return (
            f"a terminal of type {os.environ.get('TERM', '')!r} cannot show the app: `tfm-tui --plain` gives "
            "the same as a dialogue, line by line; or set TERM to what the terminal is"
        )
    return ""
