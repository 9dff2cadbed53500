"""KnobScreen: a mode with a sampling panel, whose knobs act while it writes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import msgspec
from textual import work

from tfm.core.engine import protocol
from tfm.core.sampling.settings import SamplingSettings
from tfm.tui import chain, keymap
from tfm.tui.client import Stream
from tfm.tui.presets import Found, PresetFolder
from tfm.tui.screens.base import ModeScreen
from tfm.tui.screens.prompt import Prompt
from tfm.tui.widgets import knobs
from tfm.tui.widgets.painted import PaintedRows
from tfm.tui.widgets.sampling_panel import Decoding, SamplingPanel
from tfm.tui.widgets.token_panel import TokenPanel

if TYPE_CHECKING:
    from tfm.tui.app import TfmApp
    from tfm.tui.screens.stages import StagesScreen


class KnobScreen(ModeScreen):
    """The actions of ``keymap.KNOBS``. The panel holds the settings."""

    def __init__(self) -> None:
        super().__init__()
        self._stages: StagesScreen | None = None  # the list of all stages, once it was opened

    def on_mount(self) -> None:
        self.read_presets()

    @property
    def panel(self) -> SamplingPanel:
        return self.query_one(SamplingPanel)

    @property
    def tunable(self) -> Stream | None:
        """The generation that new settings act on, if one is running."""
        return None

    def decode_with(self, decoding: Decoding) -> None:
        """Other settings: shown at once, and given to a generation that is running."""
        self.panel.decoding = decoding
        if self.tunable is not None:
            self._tune(self.tunable, decoding.settings)

    @work(group="tune")
    async def _tune(self, stream: Stream, settings: SamplingSettings) -> None:
        await self.session.client.tell(protocol.Tune(id=0, target=stream.id, settings=settings))

    # ------------------------------------------------------------------ how sure it was
    def action_confidence(self) -> None:
        """Colour the text by the model's confidence, or do not."""
        app = cast("TfmApp", self.app)
        app.remember(msgspec.structs.replace(app.settings, confidence=not app.settings.confidence))
        self.show_confidence()

    def show_confidence(self) -> None:
        binding = f"{self.MODE}.confidence"
        on = cast("TfmApp", self.app).settings.confidence and binding in keymap.ALL
        for rows in self.query(PaintedRows):
            rows.touch()
        for panel in self.query(TokenPanel):
            panel.legend(binding if on else "")

    def refresh_status(self) -> None:
        super().refresh_status()
        if self.is_mounted:
            self.show_confidence()  # another mode may have changed it

    def _set(self, settings: SamplingSettings) -> None:
        self.decode_with(msgspec.structs.replace(self.panel.decoding, settings=settings, method="sample"))

    def action_turn(self, field: str, by: int) -> None:
        self._set(knobs.turn(self.panel.decoding.settings, knobs.BY_FIELD[field], by))

    def action_preset(self, by: int) -> None:
        presets = self.panel.presets
        self._set(presets.beside(self.panel.base, by)[1])

    def action_presets(self) -> None:
        from tfm.tui.screens.preset_list import PresetList

        panel = self.panel
        self.app.push_screen(
            PresetList(PresetFolder(), panel.presets, panel.decoding.settings, self._set, self._know)
        )

    @work(group="presets")
    async def action_save_preset(self) -> None:
        """Keep the settings of now under a name."""
        from tfm.tui.screens.preset_list import save_as

        panel = self.panel
        suggested = panel.base if panel.base in panel.presets.own else ""
        name = await save_as(self.app, PresetFolder(), panel.decoding.settings, suggested or "")
        if name is not None:
            self._know(await asyncio.to_thread(PresetFolder().read))
            self.notify(
                f"Kept as {name}: [ ] and O bring it back, --preset {name!r} in a shell.", markup=False
            )

    @work(group="presets", exclusive=True)
    async def read_presets(self) -> None:
        """One's own presets, as the disk has them; the screen waits for nothing."""
        self._know(await asyncio.to_thread(PresetFolder().read))

    def _know(self, presets: Found) -> None:
        for panel in self.query(SamplingPanel):  # none, once the app ends
            panel.know(presets)
        if self._stages is not None and self._stages.is_attached:
            self._stages.know(presets)

    def action_stages(self) -> None:
        from tfm.tui.screens.stages import StagesScreen

        panel = self.panel
        self._stages = StagesScreen(
            panel.decoding.settings,
            self._set,
            presets=panel.presets,
            base=panel.base,
            resolve=self.resolve,
            on_save=self.action_save_preset,
        )
        self.app.push_screen(self._stages)

    async def resolve(self, texts: Sequence[str], ids: Sequence[int]) -> protocol.Tokenized:
        """What the model's tokenizer makes of texts and ids. Raises EngineProblem."""
        model = await self.session.ready()
        asked = protocol.Tokenize(id=0, model=model.info.name, texts=tuple(texts), ids=tuple(ids))
        return await self.session.client.ask(asked, protocol.Tokenized)

    def action_type_knob(self) -> None:
        """Any settings, typed by name."""

        def done(text: str | None) -> None:
            if text is not None:
                self._set(chain.typed(self.panel.decoding.settings, text))

        def check(text: str) -> SamplingSettings:
            return chain.typed(self.panel.decoding.settings, text)

        hint = "Names and values: temperature 0.85 top-k 40 · off is neutral · order transformers"
        self.app.push_screen(Prompt("Set", hint=hint, check=check), done)

    def action_new_seed(self) -> None:
        self._seed(random.randrange(1, 10_000))

    def action_type_seed(self) -> None:
        def done(text: str | None) -> None:
            if text is not None:
                self._seed(seed_of(text))

        self.app.push_screen(Prompt("Seed", text=str(self.panel.decoding.seed), check=seed_of), done)

    def _seed(self, seed: int) -> None:
        self.decode_with(msgspec.structs.replace(self.panel.decoding, seed=seed))


def seed_of(text: str) -> int:
    """Raises ValueError with a sentence."""
    if not text.strip().isdigit() or int(text) >= 2**63:
        raise ValueError("A seed is a whole number from 0 to 9223372036854775807.")
    return int(text)
