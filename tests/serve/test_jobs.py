"""The queue of work: one at a time, in order, with progress that never falls, and stopped when asked."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from jaxinterp.core.errors import InputError
from jaxinterp.serve.jobs import (
    CANCELLED,
    DONE,
    FAILED,
    NO_MEMORY,
    QUEUED,
    RUNNING,
    UNEXPECTED,
    Busy,
    Cancelled,
    Jobs,
    Report,
)


class Gate:
    """Work that stops in the middle until it is let through."""

    def __init__(self, result: Any = None) -> None:
        self.inside, self.open, self.result = threading.Event(), threading.Event(), result

    def __call__(self, report: Report) -> Any:
        report("half", 0.5)
        self.inside.set()
        assert self.open.wait(10)
        report("more", 0.75)
        return self.result


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    found = Jobs(most=2)
    yield found
    found.close()


def test_one_at_a_time_in_order(jobs: Jobs) -> None:
    gate, seen = Gate("first"), []
    first = jobs.submit(gate)
    second = jobs.submit(lambda report: seen.append("second"))
    third = jobs.submit(lambda report: seen.append("third"))
    assert gate.inside.wait(10)
    now = jobs.status(first)
    assert now is not None and now[:4] == (RUNNING, "half", 0.5, None)
    assert [jobs.status(job).state for job in (second, third)] == [QUEUED, QUEUED]  # type: ignore[union-attr]
    assert jobs.busy() and not seen
    gate.open.set()
    assert jobs.wait(third, 10) == (DONE, "done", 1.0, None, None)
    assert jobs.status(first) == (DONE, "done", 1.0, "first", None)
    assert seen == ["second", "third"] and not jobs.busy()


def test_a_full_queue_says_so(jobs: Jobs) -> None:
    gate = Gate()
    for _ in range(3):
        jobs.submit(gate)
    assert gate.inside.wait(10)
    with pytest.raises(Busy, match="busy"):
        jobs.submit(gate, alone=True)
    with pytest.raises(Busy, match="2 prompts are waiting already"):
        jobs.submit(gate)
    gate.open.set()


def test_waiting_work_is_cancelled_at_once_and_running_work_at_its_next_report(jobs: Jobs) -> None:
    gate, ran = Gate(), []
    running, waiting = jobs.submit(gate), jobs.submit(lambda report: ran.append(1))
    assert gate.inside.wait(10)
    assert jobs.cancel(waiting)[:2] == (CANCELLED, "cancelled")  # type: ignore[index]
    assert jobs.cancel(running)[:2] == (RUNNING, "stopping")  # type: ignore[index]
    gate.open.set()
    assert jobs.wait(running, 10)[:2] == (CANCELLED, "cancelled")  # type: ignore[index]
    assert jobs.cancel(running).state == CANCELLED and not ran  # type: ignore[union-attr]
    assert jobs.cancel(99) is None and jobs.status(99) is None and jobs.wait(99, 1) is None


def test_committed_work_is_not_stopped(jobs: Jobs) -> None:
    inside, go = threading.Event(), threading.Event()

    def work(report: Report) -> str:
        report.commit()
        inside.set()
        assert go.wait(10)
        report("written", 1.0)
        return "whole"

    job = jobs.submit(work)
    assert inside.wait(10)
    jobs.cancel(job)
    go.set()
    assert jobs.wait(job, 10).result == "whole"  # type: ignore[union-attr]


def test_progress_never_falls(jobs: Jobs) -> None:
    seen: list[float | None] = []

    def work(report: Report) -> None:
        for fraction in (0.2, 0.1, None, 0.6, -3.0, 7.0, 0.5):
            report("at it", fraction)
            seen.append(jobs.status(1).fraction)  # type: ignore[union-attr]

    assert jobs.wait(jobs.submit(work), 10).state == DONE  # type: ignore[union-attr]
    assert seen == [0.2, 0.2, 0.2, 0.6, 0.6, 1.0, 1.0]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("the word 'x'\n is outside"), "the word 'x' is outside"),
        (ValueError("secret inside"), UNEXPECTED),
        (MemoryError(), NO_MEMORY),
    ],
)
def test_failures_are_one_line_and_only_ours_are_told(
    jobs: Jobs, error: Exception, line: str, caplog: pytest.LogCaptureFixture
) -> None:
    def work(report: Report) -> None:
        raise error

    with caplog.at_level(logging.ERROR):
        found = jobs.wait(jobs.submit(work), 10)
    assert found is not None and found[:2] == (FAILED, "failed") and found.error == line
    assert ("secret inside" in caplog.text) == (type(error) is ValueError)
    assert jobs.wait(jobs.submit(lambda report: 1), 10).result == 1  # type: ignore[union-attr]


def test_ended_jobs_are_forgotten_in_time_and_in_number() -> None:
    now = [0.0]
    jobs = Jobs(keep=2, keep_seconds=100, clock=lambda: now[0])
    gate = Gate()
    ended = []
    for at in range(3):
        now[0] = float(at)
        ended.append(jobs.submit(lambda report: None))
        jobs.wait(ended[-1], 10)
    assert [jobs.status(job) is None for job in ended] == [True, False, False]
    running = jobs.submit(gate)
    assert gate.inside.wait(10)
    now[0] = 101.5
    assert [jobs.status(job) is None for job in ended] == [True, True, False]
    now[0] = 1e9
    assert jobs.status(running).state == RUNNING  # type: ignore[union-attr]
    gate.open.set()
    jobs.close()


def test_background_work_gives_way_and_never_counts() -> None:
    inside, stopped = threading.Event(), threading.Event()

    def background(report: Report) -> None:
        inside.set()
        try:
            while True:
                report("preparing")
                time.sleep(0.005)
        except Cancelled:
            stopped.set()
            raise

    jobs = Jobs(background=background)
    assert inside.wait(10) and not jobs.busy()
    assert jobs.wait(jobs.submit(lambda report: "now", alone=True), 10).result == "now"  # type: ignore[union-attr]
    assert stopped.is_set() and jobs.close(10)


def test_failed_background_work_leaves_the_queue_working(caplog: pytest.LogCaptureFixture) -> None:
    def background(report: Report) -> None:
        raise RuntimeError("inside")

    jobs = Jobs(background=background)
    assert jobs.wait(jobs.submit(lambda report: 1), 10).result == 1  # type: ignore[union-attr]
    assert jobs.close(10)


def test_closing_stops_everything_and_takes_no_more() -> None:
    jobs, gate = Jobs(), Gate()
    running, waiting = jobs.submit(gate), jobs.submit(gate)
    assert gate.inside.wait(10)
    assert not jobs.close(0.05), "the work has not heard yet"
    assert jobs.status(waiting).state == CANCELLED  # type: ignore[union-attr]
    assert jobs.wait(running) == (RUNNING, "stopping", 0.5, None, None), "who waits is not kept"
    with pytest.raises(Busy, match="stopping"):
        jobs.submit(gate)
    gate.open.set()
    assert jobs.close(10)
    assert jobs.status(running).state == CANCELLED  # type: ignore[union-attr]


def test_closing_waits_for_what_is_written() -> None:
    jobs, inside, written = Jobs(), threading.Event(), []

    def work(report: Report) -> None:
        report.commit()
        inside.set()
        time.sleep(0.3)
        written.append(1)

    jobs.submit(work)
    assert inside.wait(10)
    assert jobs.close(0.01, writing=10) and written == [1]
