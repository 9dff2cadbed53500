"""The chain as it is told: names, rules, orders, changes, what can be typed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfm.core.engine.protocol import Token
from tfm.core.sampling.settings import (
    NEUTRAL,
    ORDERS,
    PRESETS,
    RANGES,
    STAGES,
    TRANSFORMERS_ORDER,
    SamplingSettings,
    plan,
)
from tfm.tui import chain, marks
from tfm.tui.screens.stages import VIEWS, entries
from tfm.tui.widgets import knobs

fields = st.sampled_from(sorted(RANGES))


@st.composite
def some_settings(draw: st.DrawFn) -> SamplingSettings:
    """Any settings that the list of stages can make."""
    changes: dict[str, Any] = {}
    for field in draw(st.lists(fields, max_size=6, unique=True)):
        changes[field] = draw(st.sampled_from([int(v) if knobs.BY_FIELD[field].whole else v
                                               for v in knobs.BY_FIELD[field].stops]))  # fmt: skip
    settings = NEUTRAL.replace(**changes)
    if draw(st.booleans()):
        settings = settings.replace(logit_bias={3: 1.5}, banned=(7,))
    for stage in draw(st.lists(st.sampled_from(sorted(STAGES)), max_size=4)):
        settings = chain.move(settings, stage, draw(st.integers(-15, 15)))
    for stage in draw(st.lists(st.sampled_from(sorted(STAGES)), max_size=3, unique=True)):
        settings = chain.toggle(settings, stage)
    return settings


def test_every_stage_and_every_setting_is_told_once() -> None:
    assert {stage.name for stage in chain.STAGES} == STAGES and len(chain.STAGES) == len(STAGES)
    fields = [field for field in NEUTRAL.__struct_fields__ if field != "order"]
    assert sorted(chain.FIELDS) == sorted(fields)
    assert len({chain.label(field) for field in chain.FIELDS}) == len(chain.FIELDS)
    assert all(len(f"{stage.label}: {stage.rule}") <= 72 for stage in chain.STAGES)  # a line of the list


@given(some_settings())
def test_what_is_said_to_be_on_is_what_the_engine_runs(settings: SamplingSettings) -> None:
    on = [stage.name for stage in chain.STAGES if chain.state(settings, stage.name) == "on"]
    assert set(on) == set(plan(settings))
    for stage in chain.STAGES:
        told = chain.stage_text(settings, stage)
        assert (told == "off") == chain.is_neutral(settings, stage.name)


@given(some_settings())
def test_a_stage_that_is_moved_there_and_back_is_where_it_was(settings: SamplingSettings) -> None:
    for stage in settings.order:
        place = settings.order.index(stage)
        there = chain.move(settings, stage, 3)
        assert there.order.index(stage) == min(place + 3, len(settings.order) - 1)
        assert [s for s in there.order if s != stage] == [s for s in settings.order if s != stage]
        assert chain.move(there, stage, place - there.order.index(stage)) == settings


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@given(st.lists(st.sampled_from(sorted(STAGES)), unique=True))
def test_stages_that_were_left_out_come_back_to_their_places(order: tuple[str, ...], out: list[str]) -> None:
    settings = start = PRESETS["chat"].replace(order=order)
    for stage in out:
        settings = chain.toggle(settings, stage)
        assert stage not in settings.order and chain.state(settings, stage) == "left out"
    for stage in reversed(out):
        settings = chain.toggle(settings, stage)
    relative = [stage for stage in settings.order if stage not in out]
    assert relative == [stage for stage in start.order if stage not in out]
    assert set(settings.order) == STAGES
    if len(out) <= 1:
        assert settings == start


@given(some_settings(), st.sampled_from(VIEWS), st.sampled_from(("", "top", "xtc", "threshold", "no such")))
def test_the_list_shows_each_setting_once_in_the_order_of_the_chain(
    settings: SamplingSettings, view: str, find: str
) -> None:
    listed = entries(settings, view, NEUTRAL, find)
    names = [entry.stage.name for entry in listed if entry.first]
    running = [stage for stage in settings.order if stage in names]
    assert names[: len(running)] == running and not set(names[len(running) :]) & set(settings.order)
    assert len({entry.field for entry in listed}) == len(listed)
    if view == "everything" and not find:
        assert len(listed) == len(chain.FIELDS)
    if view == "what changed" and not find:
        assert {e.field for e in listed} >= set(chain.differing(settings)) - {"order"}
    assert find != "no such" or not listed


def test_changes_are_told_setting_by_setting() -> None:
    after = NEUTRAL.replace(
        temperature=0.9, top_k=40, order=TRANSFORMERS_ORDER, logit_bias={5: 2.0}, banned=(9,)
    )
    assert chain.changes(NEUTRAL.replace(temperature=0.7), after) == [
        "logit bias #5 +0 → +2",
        "banned tokens +#9",
        "top-k off → 40",
        "temperature 0.70 → 0.90",
        "order llama.cpp → transformers",
    ]
    assert chain.changes(after, after) == []
    assert chain.summary(PRESETS["balanced"]) == "top-p 0.95, temperature 0.70"


@given(some_settings(), some_settings())
def test_settings_differ_exactly_where_something_is_told(
    one: SamplingSettings, other: SamplingSettings
) -> None:
    assert (chain.changes(one, other) == []) == (one == other)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("temperature 0.85 top-k=40", {"temperature": 0.85, "top_k": 40}),
        ("temp .8, min p 0.05", {"temperature": 0.8, "min_p": 0.05}),
        ("xtc 0.5 xtc threshold 0.2", {"xtc_chance": 0.5, "xtc_threshold": 0.2}),
        ("repetition_window 64; dry_multiplier 0.8", {"repetition_window": 64, "dry_multiplier": 0.8}),
        ("presence -0.5", {"presence": -0.5}),
        ("order transformers", {"order": TRANSFORMERS_ORDER}),
        ("order top-k, temperature", {"order": ("top_k", "temperature")}),
        ("top-p off", {}),
    ],
)
def test_settings_are_typed_by_name(text: str, made: dict[str, Any]) -> None:
    assert chain.typed(NEUTRAL, text) == NEUTRAL.replace(**made)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "write a name and a value"),
        ("40", "write a name and a value"),
        ("hotness 3", "there is no setting 'hotness'"),
        ("top 3", "there is no setting 'top'"),  # top-k, top-p or top-n-sigma?
        ("temperature", "temperature needs a value"),
        ("temperature 99", "temperature must lie in [0, 10]"),
        ("temperature 1e999", "is no number"),
        ("top-k 2.5", "top-k takes a whole number"),
        ("order topk", "order names no stage 'topk'"),
        ("order", "there is no setting 'order'"),
    ],
)
def test_what_is_no_setting_is_refused_with_a_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ValueError) as error:
        chain.typed(NEUTRAL, text)
    assert sentence in str(error.value) and "\n" not in str(error.value)


@given(st.lists(st.text("ab\\\n\t :*n", min_size=1, max_size=4), unique=True))
def test_breakers_are_read_as_they_are_written(strings: list[str]) -> None:
    assert chain.read_strings(chain.write_strings(strings)) == tuple(strings)


def token(piece: str, settings: SamplingSettings | None = None) -> Token:
    marked = settings is not None
    return Token(id=1, lane=0, position=0, token=5, piece=piece, logprob=-1, entropy=1, probability=1,
                 settings_mark=marked, settings=settings)  # fmt: skip


def test_a_mark_says_what_began_there() -> None:
    first, warm, cut = PRESETS["greedy"], NEUTRAL.replace(temperature=0.9), NEUTRAL.replace(top_k=3)
    found = marks.of_tokens([token("Ein"), token(" Mann", warm), token("."), token(" Er", cut)])
    assert [(mark.at, mark.char) for mark in found] == [(1, 3), (3, 9)]
    assert marks.meaning(first, found, 0) == "temperature 0.00 → 0.90 from here"
    assert marks.meaning(first, found, 1) == "top-k off → 3, temperature 0.90 → 1.00 from here"
    assert marks.in_force(first, found) == cut and marks.in_force(first, ()) == first
