"""Where each kind of work is kept under ``$TFM_HOME``."""

from __future__ import annotations

from tfm.tui.conversation import Conversation, ConversationHead
from tfm.tui.filled import FilledHead, FilledWork
from tfm.tui.notebook import Notebook, NotebookHead
from tfm.tui.store import Store


def chats() -> Store[Conversation]:
    return Store(Conversation, ConversationHead, "chats")


def translations() -> Store[Notebook]:
    return Store(Notebook, NotebookHead, "translations")


def fills() -> Store[FilledWork]:
    return Store(FilledWork, FilledHead, "fills")
