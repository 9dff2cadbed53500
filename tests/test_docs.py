"""The documents tell the truth: what they quote stands in the code, what they link to is there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
QUOTE = re.compile(r"^```python (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SOURCE_PATH = re.compile(r"`((?:core|train|tui|tests|bench|docs|checkpoints|\.typing)/[\w./-]*[\w/])`")


def quotes() -> Iterator[tuple[Path, str, str]]:
    for document in DOCUMENTS:
        for path, code in QUOTE.findall(document.read_text("utf-8")):
            yield document, path, code


def squeezed(text: str) -> str:
    """Without white space, so that the formatter may wrap a line differently."""
    return re.sub(r"\s+", "", text)


def anchors(document: Path) -> set[str]:
    """The anchors that a document's headings get."""
    headings = re.findall(r"^#+ (.+)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(("document", "path", "code"), quotes())
def test_quoted_code_stands_in_the_file_it_names(document: Path, path: str, code: str) -> None:
    assert squeezed(code) in squeezed((ROOT / path).read_text("utf-8")), f"{document.name} quotes old code"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in LINK.findall(document.read_text("utf-8")):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{document.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{document.name}: no heading for {link}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_named_source_files_exist(document: Path) -> None:
    for path in SOURCE_PATH.findall(document.read_text("utf-8")):
        assert (ROOT / path).exists(), f"{document.name} names {path}"


def test_documents_name_every_sampling_stage_and_preset() -> None:
    from tfm.core.sampling.settings import PRESETS, STAGES

    text = (ROOT / "docs/sampling.md").read_text("utf-8")
    missing = [name for name in (*STAGES, *PRESETS) if f"`{name}`" not in text]
    assert not missing


def test_documents_name_every_message_and_event() -> None:
    from typing import get_args

    from tfm.core.engine import protocol
    from tfm.train import events

    text = (ROOT / "docs/formats.md").read_text("utf-8")
    records = (*get_args(protocol.AnyRequest), *get_args(protocol.AnyEvent), *get_args(events.AnyTrainEvent))
    tags = [record.__struct_config__.tag for record in records]
    assert not [tag for tag in tags if f"`{tag}`" not in text]
    for record in get_args(events.AnyTrainEvent):
        for name in record.__struct_fields__:
            assert f"`{name}`" in text, f"docs/formats.md does not explain {name} of {record.__name__}"


def test_documents_name_every_command() -> None:
    from tfm.tui.cli import COMMANDS

    text = (ROOT / "README.md").read_text("utf-8")
    assert not [name for name in COMMANDS if f"`{name}" not in text and f"tfm-tui {name}" not in text]
