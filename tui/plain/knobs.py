"""Commands that turn the knobs of the mode that one is in. They act on what is being written, too."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import msgspec

from tfm.core.sampling.settings import SamplingSettings
from tfm.tui.commands.suggest import suggest
from tfm.tui.plain.commands import command, number
from tfm.tui.plain.part import Part
from tfm.tui.presets import OWN, PresetFolder
from tfm.tui.widgets import knobs
from tfm.tui.widgets.sampling_panel import Decoding

if TYPE_CHECKING:
    from tfm.tui.plain.dialogue import Dialogue


class Knobs:
    def __init__(self, dialogue: Dialogue) -> None:
        self._dialogue = dialogue
        self._speaker = dialogue.speaker

    @property
    def _part(self) -> Part:
        return self._dialogue.part

    @property
    def _decoding(self) -> Decoding:
        if self._part.decoding is None:
            raise ValueError(f"There is nothing to sample in {self._part.NAME}.")
        return self._part.decoding

    @command("knobs", "settings", arguments="[all]", help="What is set; with all, every knob.", at_once=True)
    async def knobs(self, text: str) -> None:
        now = self._decoding
        if now.method == "beam":
            self._speaker.say(f"Beam search, {now.beam_width} wide; the knobs wait for /sample.")
        name = PresetFolder().read().name_of(now.settings) or OWN
        self._speaker.say(f"Preset {name}, seed {now.seed}.")
        for knob in (*knobs.MAIN, *knobs.OTHERS):
            value = knobs.value_of(now.settings, knob)
            if text == "all" or value != knob.neutral:
                explained = f": {knob.help}" if text == "all" else ""
                self._speaker.say(f"{knob.field} {knobs.format_value(knob, value)}{explained}")
        if text == "all":
            self._speaker.say(f"order {','.join(now.settings.order)}")

    @command("set", arguments="KNOB VALUE", at_once=True,
             help="Turn a knob to a value, a step up (+) or down (-), or off.")  # fmt: skip
    async def set(self, text: str) -> None:
        name, _, value = text.replace("=", " ").partition(" ")
        name, value = name.lower().replace("-", "_"), value.strip()
        settings = self._decoding.settings
        if name == "order" and value:
            stages = tuple(stage.strip().replace("-", "_") for stage in value.split(","))
            return await self._use(settings.replace(order=stages), f"order {', '.join(stages)}")
        knob = knobs.BY_FIELD.get(name)
        if knob is None:
            raise ValueError(
                f"There is no knob {name!r}{suggest(name, knobs.BY_FIELD)}; /knobs all lists them."
                if name
                else "Say which knob and how far, such as /set temperature 0.8; /knobs all lists them."
            )
        if value in ("+", "-"):
            settings = knobs.turn(settings, knob, 1 if value == "+" else -1)
        elif value == "off":
            settings = knobs.set_value(settings, knob, knob.neutral)
        else:
            try:
                figure = float(value)
            except ValueError:
                raise ValueError(f"{name} takes a number, +, - or off, not {value!r}.") from None
            settings = knobs.set_value(settings, knob, figure)
        await self._use(settings, f"{name} {knobs.format_value(knob, knobs.value_of(settings, knob))}")

    @command("preset", arguments="[NAME]", help="All knobs at once; alone: the names.", at_once=True)
    async def preset(self, text: str) -> None:
        presets = PresetFolder().read()
        if not text:
            now = presets.name_of(self._decoding.settings) or OWN
            self._speaker.say(f"The presets are {', '.join(presets.all)}; this is {now}.")
        elif text not in presets.all:
            problem = presets.problems.get(text)
            raise ValueError(problem or f"There is no preset {text!r}{suggest(text, presets.all)}.")
        else:
            await self._use(presets.all[text], f"preset {text}")

    @command("seed", arguments="[N]", help="The seed of the next text; alone: another one.", at_once=True)
    async def seed(self, text: str) -> None:
        seed = number(text, "A seed", 0) if text else random.randrange(1, 10_000)
        await self._part.decode_with(msgspec.structs.replace(self._decoding, seed=seed))
        self._speaker.note(f"seed {seed}")

    async def _use(self, settings: SamplingSettings, said: str) -> None:
        _ = self._decoding
        await self._part.set(settings)
        self._speaker.note(said)
