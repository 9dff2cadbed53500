"""A child that loops, eats memory, dies or talks nonsense is a sentence here, and nothing more."""

from __future__ import annotations

import os
import time

import pytest

from tfm.core.convert.limited import MEBI, LimitedError, run_limited


def test_returns_what_the_function_returns() -> None:
    assert run_limited("os.path:basename", "a/b/ü") == "ü"
    assert run_limited("math:isqrt", 17) == 4
    assert run_limited("builtins:sorted", [3, 1, 2]) == [1, 2, 3]


def test_a_value_error_comes_back_as_it_is() -> None:
    with pytest.raises(LimitedError, match="invalid literal") as caught:
        run_limited("builtins:int", "x")
    assert caught.value.failure == "refused"


def test_memory_is_limited() -> None:
    with pytest.raises(LimitedError, match="more than 64 MiB") as caught:
        run_limited("builtins:bytearray", 200 * MEBI, memory=64 * MEBI)
    assert caught.value.failure == "memory"


def test_cpu_time_is_limited() -> None:
    begin = time.monotonic()
    with pytest.raises(LimitedError, match="longer than 1 s") as caught:
        run_limited("builtins:exec", "while True: pass", seconds=1)
    assert caught.value.failure == "time"
    assert time.monotonic() - begin < 8


def test_waiting_is_limited() -> None:
    with pytest.raises(LimitedError, match="longer than") as caught:
        run_limited("time:sleep", 60, seconds=0.1)
    assert caught.value.failure == "time"


@pytest.mark.parametrize(
    "code", ["import os; os.abort()", "import os; os._exit(3)", "import os; os.kill(os.getpid(), 11)"]
)
def test_a_dying_child_is_a_crash(code: str) -> None:
    with pytest.raises(LimitedError, match="makes its parser crash") as caught:
        run_limited("builtins:exec", code)
    assert caught.value.failure == "crash"


def test_other_exceptions_are_named() -> None:
    with pytest.raises(LimitedError, match="TypeError"):
        run_limited("math:isqrt", "four")
    with pytest.raises(LimitedError, match="KeyboardInterrupt"):
        run_limited("builtins:exec", "raise KeyboardInterrupt")


def test_what_the_function_prints_is_no_reply(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_limited("builtins:print", '{"value": 1}') is None
    assert capfd.readouterr() == ("", "")


def test_nothing_is_left_behind() -> None:
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        run_limited("math:isqrt", 4)
    assert set(os.listdir("/proc/self/fd")) == before


def test_somebody_may_look_meanwhile_and_call_it_off() -> None:
    looks: list[int] = []
    run_limited("time:sleep", 0.5, look=lambda: looks.append(1))
    assert looks

    class Enough(Exception):
        pass

    def enough() -> None:
        raise Enough

    with pytest.raises(Enough):
        run_limited("time:sleep", 60, look=enough)
