"""Two configs side by side."""

from __future__ import annotations

from tfm.core.compare import ABSENT, Compared, compare


def test_what_differs_comes_first_and_nothing_is_left_out() -> None:
    one = {"family": "decoder-only", "d_model": 1024, "bias": True, "eos_ids": [1, 2], "rope": None}
    rope = {"kind": "linear", "factor": 2.0}
    other = {"family": "decoder-only", "d_model": 512, "bias": True, "rope": rope, "new": ""}
    assert compare(one, other) == [
        Compared("d_model", "1,024", "512"),
        Compared("eos_ids", "1 2", ABSENT),
        Compared("rope", "none", "kind linear, factor 2.0"),
        Compared("new", ABSENT, ""),
        Compared("family", "decoder-only", "decoder-only"),
        Compared("bias", "yes", "yes"),
    ]
    assert not any(pair.differs for pair in compare(one, one))
