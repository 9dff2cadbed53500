"""What is typed to start a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tfm.core.engine import protocol
from tfm.train.config import load_config
from tfm.tui.starting import EXAMPLE, USAGE, run_start


@pytest.mark.parametrize(
    ("text", "config", "overrides", "nproc"),
    [
        ("  a.toml ", "a.toml", {}, 1),
        ('"my run.toml" --nproc 2', "my run.toml", {}, 2),
        ("--nproc=3 a.toml --set loop.max_steps=5", "a.toml", {"loop.max_steps": "5"}, 3),
        (r"a\ b.toml optim.betas='[0.9, 0.99]' name=x=y", "a b.toml",
         {"optim.betas": "[0.9, 0.99]", "name": "x=y"}, 1),
        ("/data/lr=1/a.toml", "/data/lr=1/a.toml", {}, 1),
        (USAGE, "mine.toml", {"loop.max_steps": "500"}, 2),
    ],
)  # fmt: skip
def test_the_words_of_the_command(text: str, config: str, overrides: dict[str, str], nproc: int) -> None:
    assert run_start(text) == protocol.RunStart(id=0, config=config, overrides=overrides, nproc=nproc)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "Name a config file"), ("--nproc 2", "Name a config file"), ("a b.toml", "'b.toml' is one word"),
        ("a.toml --nproc", "--nproc takes a number"), ("a.toml --nproc 0", "not '0'"),
        ("a.toml --nproc ٣", "--nproc takes a number"), ("a.toml --fast", "'--fast' is one word too many"),
        ("'a.toml", "quotation mark"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_sentence(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        run_start(text)


def test_the_example_is_a_config(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(EXAMPLE)
    config = load_config(tmp_path / "mine.toml")
    assert (config.name, config.data.train, config.data.format) == ("mine", "pairs.tsv", "tsv")
