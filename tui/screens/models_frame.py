"""ModelsFrame: what the Models mode shows. What its keys do is in models.py."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from textual import on, work
from textual.binding import BindingType
from textual.containers import Container
from textual.timer import Timer
from textual.widget import Widget

from tfm.core.engine import protocol
from tfm.core.engine.protocol import ModelCard, ModelInfo
from tfm.tui import keymap
from tfm.tui.client import EngineProblem
from tfm.tui.screens.base import ModeScreen
from tfm.tui.shelf import Shelf, reference
from tfm.tui.widgets.lines import name_box
from tfm.tui.widgets.model_foot import ModelFoot
from tfm.tui.widgets.model_list import ModelList
from tfm.tui.widgets.model_page import ModelPage

LIST_EVERY = 5.0  # seconds between looks at which models there are
MAX_CARDS = 50  # read ones that are kept


class ModelsFrame(ModeScreen):
    """The list, the card of the chosen model or a comparison, and the foot; all of it from a shelf."""

    MODE = "models"
    BINDINGS: ClassVar[list[BindingType]] = [*keymap.MODELS]
    AUTO_FOCUS = "#shelf"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]

    def __init__(self) -> None:
        super().__init__()
        self.shelf = Shelf()
        self.cards: dict[str, ModelCard] = {}  # by path
        self._lister: Timer | None = None

    # ------------------------------------------------------------------ layout
    def body(self) -> Iterable[Widget]:
        with Container(id="models"):
            yield ModelList(self.shelf, id="shelf", classes="box")
            yield ModelPage(id="card", classes="box")
        yield ModelFoot(self.shelf, id="foot")

    def on_mount(self) -> None:
        name_box(self.listing, title="Models")
        self._lister = self.set_interval(LIST_EVERY, self.look)
        self.look()
        self.show()

    def on_screen_resume(self) -> None:
        super().on_screen_resume()
        if self._lister is not None:
            self._lister.resume()
            self.look()

    def on_screen_suspend(self) -> None:
        if self._lister is not None:
            self._lister.pause()

    @property
    def listing(self) -> ModelList:
        return self.query_one(ModelList)

    @property
    def page(self) -> ModelPage:
        return self.query_one(ModelPage)

    @property
    def standing(self) -> bool:
        """Are the widgets there? A worker that is cancelled by the end of the app sees them gone."""
        return self.is_mounted and bool(self.query(ModelPage))

    @property
    def reading(self) -> bool:
        return self.page.has_focus

    # ------------------------------------------------------------------ what there is
    @work(exclusive=True, group="list")
    async def look(self) -> None:
        """Read the list again; what changed is shown."""
        try:
            answer = await self.session.client.ask(protocol.ModelsList(id=0), protocol.ModelsListed)
        except EngineProblem as problem:
            self.listing.message = str(problem)
            self.shelf.held = ()
        else:
            self.listing.message = "There is no model yet."
            self.shelf.replace(answer.models, answer.held, answer.budget_bytes)
            known = {info.path: info for info in answer.models}
            self.cards = {path: card for path, card in self.cards.items() if card.info == known.get(path)}
        self.show()

    @work(exclusive=True, group="card")
    async def _read_card(self, info: ModelInfo) -> None:
        try:
            card = await self.card_of(info)
        except EngineProblem:
            return  # gone meanwhile: the next look at the list shows it
        if self.standing and self.shelf.here is not None and self.shelf.here.path == card.info.path:
            self.show()

    async def card_of(self, info: ModelInfo) -> ModelCard:
        """Raises EngineProblem."""
        if info.path not in self.cards:
            message = protocol.ModelsCard(id=0, model=reference(info, self.shelf.models))
            card = await self.session.client.ask(message, ModelCard)
            while len(self.cards) >= MAX_CARDS:
                del self.cards[next(iter(self.cards))]
            # The list's record stands for the same folder; only its scores or size may be newer.
            self.cards[info.path] = ModelCard(
                id=0, info=info, card=card.card, config=card.config, files=card.files, training=card.training
            )
        return self.cards[info.path]

    @on(ModelList.Move)
    def _moved(self, event: ModelList.Move) -> None:
        self.shelf.move(event.by)
        self.show()

    # ------------------------------------------------------------------ showing it
    def show(self) -> None:
        """Bring everything in line with the shelf. Costs nothing where nothing changed."""
        if not self.standing:
            return
        self.listing.show()
        self.show_foot()
        self._show_page()
        self.refresh_keys()

    def show_foot(self) -> None:
        """How far things are changes often: only the foot and the rows in the list follow."""
        if self.standing:
            self.query_one(ModelFoot).repaint()
            self.listing.touch()

    def say(self, sentence: str, style: str = "dim") -> None:
        """News, in one row."""
        if self.standing:
            self.query_one(ModelFoot).news = (sentence, style)
            self.show_foot()

    def _show_page(self) -> None:
        info, compared = self.shelf.here, self.shelf.compared
        if info is None:
            self.page.read(None)
            name_box(self.page, title="", subtitle="")
            return
        card = self.cards.get(info.path)
        if card is None:
            self._read_card(info)
            return  # what is shown stays until it is there, which is soon
        one = self.cards.get(compared.path) if compared is not None else None
        if one is not None and one.info.path != info.path:
            self.page.compare(one, card)
            end = self.told("{models.stop} ends comparing")
            name_box(self.page, title=f"{one.info.name} and {info.name}", subtitle=end)
        else:
            self.page.read(card, self.shelf.verified.get(info.path))
            hint = "choose another one to compare with" if compared is not None else ""
            name_box(self.page, title=info.name, subtitle=hint)

    # ------------------------------------------------------------------ keys
    def on_descendant_focus(self) -> None:
        self.set_class(self.reading, "-reading")
        super().on_descendant_focus()

    def keys_now(self) -> tuple[list[str], dict[str, str]]:
        shelf, info = self.shelf, self.shelf.here
        stop = ["models.stop"] if shelf.works or shelf.compared is not None or self.reading else []
        labels = {"models.card": "list" if self.reading else "card"}
        if not shelf.works:
            labels["models.stop"] = "back" if self.reading else "end comparing"
        if self.reading:
            return [*stop, "card.up", "card.down", "card.page_up", "card.page_down", "models.card"], labels
        new = ["models.import", "models.pull"]
        if info is None:
            return [*stop, *new], labels
        memory = "models.unload" if shelf.in_memory(info) else "models.load"
        own = ["models.delete"] if info.source == "local" else []
        usual = [memory, "models.verify", "models.compare", *new, *own, "models.card"]
        return [*stop, "models.use", *usual], labels
