"""The sampling options and the settings they make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from tfm.core.sampling.settings import NEUTRAL, PRESETS, RANGES
from tfm.tui.commands.sampling import Sampling, sampling_options
from tfm.tui.presets import PresetFolder


def read(*args: str) -> tuple[Sampling | None, Result]:
    seen: list[Sampling] = []

    @click.command()
    @sampling_options
    def probe(sampling: Sampling) -> None:
        seen.append(sampling)

    result = CliRunner().invoke(probe, list(args))
    return (seen[0] if seen else None), result


def settings_of(*args: str) -> dict[str, Any]:
    """The settings that differ from neutral."""
    sampling, result = read(*args)
    assert sampling is not None, result.output
    assert sampling.given
    return sampling.told()


def test_nothing_given_is_neutral_and_says_so() -> None:
    sampling, _ = read()
    assert sampling is not None
    assert not sampling.given
    assert sampling.settings == NEUTRAL
    other, _ = read()
    assert other is not None and other.seed != sampling.seed  # drawn anew each time


@pytest.mark.parametrize(
    ("args", "settings"),
    [
        (["--temperature", "0.5"], {"temperature": 0.5}),
        (["--top-k", "7", "--top-p", "0.9", "--min-p", "0.1"], {"top_k": 7, "top_p": 0.9, "min_p": 0.1}),
        (["--xtc", "0.5,0.2"], {"xtc_chance": 0.5, "xtc_threshold": 0.2}),
        (["--dry", "0.8,1.5,3"], {"dry_multiplier": 0.8, "dry_base": 1.5, "dry_allowed": 3}),
        (["--mirostat", "5,0.2"], {"mirostat_tau": 5.0, "mirostat_eta": 0.2}),
        (["--dynamic-temperature", "0.5,2"], {"dynamic_range": 0.5, "dynamic_exponent": 2.0}),
        (["--logit-bias", "5=1.5", "--logit-bias", "6=-inf"], {"logit_bias": {5: 1.5}, "banned": (6,)}),
        (["--order", "temperature,top-k"], {"order": ("temperature", "top_k")}),
        (["--preset", "balanced"], {"temperature": 0.7, "top_p": 0.95}),
        (["--preset", "balanced", "--top-p", "1"], {"temperature": 0.7}),
    ],
)  # fmt: skip
def test_options_become_settings(args: list[str], settings: dict[str, Any]) -> None:
    assert settings_of(*args) == settings


def test_a_preset_of_ones_own_is_taken_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFM_HOME", str(tmp_path))
    mine = NEUTRAL.replace(temperature=0.8, dry_breakers=("!",), order=("top_k", "temperature"))
    PresetFolder().save("my prose", mine)
    sampling, result = read("--preset", "my prose", "--top-k", "5")
    assert sampling is not None, result.output
    assert sampling.settings == mine.replace(top_k=5)
    _, result = read("--preset", "my pose")
    assert result.exit_code == 2 and "did you mean 'my prose'?" in " ".join(result.output.split())
    PresetFolder().path("torn").write_text("{")
    _, result = read("--preset", "torn")
    assert result.exit_code == 2 and "is no preset" in " ".join(result.output.split())


def test_a_seed_alone_counts_as_sampling() -> None:
    sampling, _ = read("--seed", "7")
    assert sampling is not None
    assert (sampling.seed, sampling.given, sampling.seed_drawn) == (7, True, False)


def test_every_number_of_the_settings_has_an_option() -> None:
    packed = ("dynamic", "xtc", "dry", "mirostat")  # several numbers in one option
    named = [name for name in RANGES if not name.startswith(packed) and name != "repetition_window"]
    _, result = read("--help")
    for name in named:
        assert f"--{name.replace('_', '-')} " in result.output
    assert all(name in result.output for name in PRESETS)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--top-p", "1.5"], "top_p must lie in [0, 1], not 1.5"),
        (["--temperature", "nan"], "temperature must lie in"),
        (["--order", "top-k,top-k"], "order names a stage twice"),
        (["--order", "topk"], "order names no stage 'topk'"),
    ],
)
def test_values_out_of_range_are_refused(args: list[str], sentence: str) -> None:
    sampling, result = read(*args)
    assert sampling is None
    assert isinstance(result.exception, ValueError)
    assert sentence in str(result.exception)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--xtc", "0.5"], "'0.5' is not a number, a number"),
        (["--dry", "1,2,x"], "is not a number, a number, a whole number"),
        (["--logit-bias", "x=1"], "is not ID=B"),
        (["--logit-bias", "-1=1"], "needs an id from 0 up"),
        (["--preset", "greddy"], "did you mean 'greedy'?"),
        (["--seed", "-1"], "-1"),
    ],
)
def test_texts_that_are_no_settings_are_refused(args: list[str], sentence: str) -> None:
    sampling, result = read(*args)
    assert sampling is None
    assert result.exit_code == 2
    assert sentence in " ".join(result.output.split())
