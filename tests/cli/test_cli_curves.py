"""``curves``: what a run's log tells, as CSV, JSON and a picture."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.cli.conftest import Run
from tfm.train.event_log import EventLog
from tfm.train.events import Evaluated, Step
from tfm.train.run_dir import RunDir


@pytest.fixture
def logged(tmp_path: Path) -> RunDir:
    """A run of ten steps with an evaluation at its end."""
    run = RunDir.create('name = "mine"\n', "mine", tmp_path / "home" / "runs")
    log = EventLog(run)
    for n in range(1, 11):
        log.append(
            Step(step=n, epoch=0.1, loss=9 / n, nll=2.0, accuracy=0.1, grad_norm=1.0, learning_rate=1e-3,
                 tokens=n * 100, tokens_per_second=50.0, seconds=n * 2.0)
        )  # fmt: skip
    log.append(Evaluated(step=10, loss=1.0, perplexity=2.7, accuracy=0.3, bleu=12.0))
    log.close()
    return run


def test_curves_go_to_stdout_and_to_files(run: Run, logged: RunDir, tmp_path: Path) -> None:
    ran = run("curves", logged.id, "--curve", "loss", "--curve", "bleu")
    assert ran.status == 0, ran.err
    header, *rows = ran.out.splitlines()
    assert header == "run,curve,split,step,seconds,tokens,value"
    assert rows[0].startswith(f"{logged.id},loss,train,") and {row.split(",")[1] for row in rows} <= {
        "loss",
        "bleu",
    }
    ran = run("curves", logged.id, "--json", "--curve", "loss")
    assert {"run": logged.id, "curve": "loss"}.items() <= msgspec.json.decode(ran.out.splitlines()[0]).items()
    ran = run(
        "curves", logged.id, "-o", tmp_path / "picture.svg", "--axis", "time", "--smooth", "0.9", "--log"
    )
    assert ran.status == 0 and "over time" in (tmp_path / "picture.svg").read_text()
    for bad, why in (
        (["--curve", "blue"], "no curve 'blue'"),
        (["-o", "x.png"], ".csv or .svg"),
        (["-o", str(tmp_path / "no" / "x.csv")], "cannot be written"),
    ):
        ran = run("curves", logged.id, *bad)
        assert ran.status == 2 and why in ran.err and len(ran.err.splitlines()) == 1
    assert run("curves", "no-such-run").status == 2
