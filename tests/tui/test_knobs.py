"""Knobs step, stop at their ends, and say when they do nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfm.core.sampling.settings import NEUTRAL, RANGES
from tfm.tui.widgets import knobs

ALL = (*knobs.MAIN, *knobs.OTHERS)


@pytest.mark.parametrize("knob", ALL, ids=lambda knob: knob.field)
def test_every_stop_is_allowed_and_reached(knob: knobs.Knob) -> None:
    low, high = RANGES[knob.field]
    assert list(knob.stops) == sorted(set(knob.stops))
    assert all(low <= stop <= high for stop in knob.stops)
    settings = knobs.set_value(NEUTRAL, knob, knob.stops[0])
    seen = [knobs.value_of(settings, knob)]
    for _ in knob.stops[1:]:
        settings = knobs.turn(settings, knob, 1)
        seen.append(knobs.value_of(settings, knob))
    assert seen == pytest.approx(list(knob.stops))
    assert knobs.turn(settings, knob, 1) == settings  # the end is the end
    for stop in reversed(knob.stops[:-1]):
        settings = knobs.turn(settings, knob, -1)
        assert knobs.value_of(settings, knob) == pytest.approx(stop)


@given(st.sampled_from(ALL), st.integers(5, 40), st.data())
def test_a_slider_has_one_knob_and_its_width(knob: knobs.Knob, cells: int, data: st.DataObject) -> None:
    value = data.draw(st.sampled_from(knob.stops))
    track = "".join(text for text, _ in knobs.slider(knob, value, cells))
    assert len(track) == cells
    assert track.count("●") == 1


def test_neutral_switches_read_off() -> None:
    assert knobs.format_value(knobs.BY_FIELD["top_k"], 0) == "off"
    assert knobs.format_value(knobs.BY_FIELD["typical"], 1.0) == "off"
    assert knobs.format_value(knobs.BY_FIELD["temperature"], 1.0) == "1.00"
    assert knobs.format_value(knobs.BY_FIELD["epsilon"], 0.0003) == "0.0003"


@given(st.sampled_from(ALL), st.floats(0, 1), st.sampled_from((-5, -1, 1, 5)))
def test_a_turn_goes_the_way_it_says_to_a_stop_and_never_out_of_range(
    knob: knobs.Knob, share: float, by: int
) -> None:
    low, high = RANGES[knob.field]
    start = low + share * (high - low)
    settings = knobs.set_value(NEUTRAL, knob, int(start) if knob.whole else start)
    before = knobs.value_of(settings, knob)
    after = knobs.value_of(knobs.turn(settings, knob, by), knob)
    if (before >= knob.stops[-1] and by > 0) or (before <= knob.stops[0] and by < 0):
        assert after == before  # what was typed past the last stop is not taken back
    else:
        assert (after - before) * by > 0 and after in knob.stops
    if abs(by) > 1:
        steps = settings
        for _ in range(abs(by)):
            steps = knobs.turn(steps, knob, by // abs(by))
        assert knobs.value_of(steps, knob) == after


def test_an_odd_value_steps_to_its_neighbours() -> None:
    knob = knobs.BY_FIELD["temperature"]
    odd = knobs.set_value(NEUTRAL, knob, 0.73)
    assert knobs.value_of(knobs.turn(odd, knob, 1), knob) == 0.75
    assert knobs.value_of(knobs.turn(odd, knob, -1), knob) == 0.7
    with pytest.raises(ValueError, match="temperature"):
        knobs.set_value(NEUTRAL, knob, 99)
    with pytest.raises(ValueError, match="whole"):
        knobs.set_value(NEUTRAL, knobs.BY_FIELD["top_k"], 2.5)


def test_every_field_of_the_chain_has_a_knob() -> None:
    assert {knob.field for knob in ALL} == set(RANGES)
