"""Long work one piece at a time: a queue with a worker thread, progress, and being stopped."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jaxinterp.core.errors import JaxinterpError

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"
ENDED = (DONE, FAILED, CANCELLED)
UNEXPECTED = "something went wrong inside; what it was is in the log of the server"
NO_MEMORY = "out of memory: ask for fewer features, or give a shorter prompt"
STOPPING = "stopping"

log = logging.getLogger("jaxinterp.serve")


class Cancelled(JaxinterpError):
    """Work was asked to stop and did; nothing of it is left."""


class Busy(JaxinterpError):
    """There is other work; try again."""


class Status(NamedTuple):
    """What became of a job so far.

    Attributes:
      state: one of `QUEUED`, `RUNNING`, `DONE`, `FAILED`, `CANCELLED`.
      stage: what is being done, in a word or two.
      fraction: of all the work, 0 to 1, never falling; None where that is not known.
      result: what the work returned, when done.
      error: one line for people, when failed.
    """

    state: str
    stage: str
    fraction: float | None
    result: Any
    error: str | None


class Report:
    """How work says where it is, and hears that it is to stop."""

    def __init__(self, told: Callable[[str, float | None], None], stopped: Callable[[], bool]) -> None:
        self._told, self._stopped = told, stopped
        self.held = False

    def __call__(self, stage: str, fraction: float | None = None) -> None:
        """Say what is being done and how much of all of it is done.

        Raises:
          Cancelled: the work is to stop.
        """
        self.check()
        self._told(stage, fraction)

    def check(self) -> None:
        """Raises `Cancelled` if the work is to stop."""
        if not self.held and self._stopped():
            raise Cancelled("cancelled")

    def commit(self) -> None:
        """From here on the work is not stopped: what it writes is written whole. Raises `Cancelled` for a last time."""
        self.check()
        self.held = True


Work = Callable[[Report], Any]


@dataclass
class _Job:
    work: Work
    state: str = QUEUED
    stage: str = "waiting"
    fraction: float | None = None
    result: Any = None
    error: str | None = None
    stop: bool = False
    ended: float = field(default=0.0)

    def status(self) -> Status:
        stage = STOPPING if self.state == RUNNING and self.stop else self.stage
        return Status(self.state, stage, self.fraction, self.result, self.error)


class Jobs:
    """Runs one job at a time in a thread of its own, in the order in which they came.

    ``closed`` says that it takes no more.

    Args:
      most: jobs that may wait, beside the one that runs.
      keep, keep_seconds: so many jobs that ended are remembered, and for so long.
      background: work to do while there is no job, once, before anything else; stopped when a job comes.
      clock: seconds.
    """

    def __init__(
        self, *, most: int = 8, keep: int = 200, keep_seconds: float = 3600.0, background: Work | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self.closed = False
        self.most, self.keep, self.keep_seconds, self._clock = most, keep, keep_seconds, clock
        self._background = background
        self._changed = threading.Condition()
        self._jobs: dict[int, _Job] = {}
        self._report: Report | None = None
        self._queue: list[int] = []
        self._running: int | None = None
        self._next = 1
        self._worker = threading.Thread(target=self._work, name="jaxinterp-jobs", daemon=True)
        self._worker.start()

    def submit(self, work: Work, *, alone: bool = False) -> int:
        """Put work into the queue; returns the job's number.

        Args:
          work: called with a `Report` in the worker's thread.
          alone: only if there is no other job.

        Raises:
          Busy: there are as many jobs as may wait, or with ``alone`` any; or the queue is closed.
        """
        with self._changed:
            self._forget()
            if self.closed:
                raise Busy("the server is stopping")
            if alone and self._occupied():
                raise Busy("the server is busy with another graph, try again later")
            if (
                len(self._queue) - (self._running is None) >= self.most
            ):  # where none runs, the first is about to
                raise Busy(f"{self.most} prompts are waiting already: try again when one of them is done")
            name = self._next
            self._next += 1
            self._jobs[name] = _Job(work)
            self._queue.append(name)
            self._changed.notify_all()
            return name

    def status(self, name: int) -> Status | None:
        """What became of a job; None if there is none of that number (any more)."""
        with self._changed:
            self._forget()
            job = self._jobs.get(name)
            return None if job is None else job.status()

    def cancel(self, name: int) -> Status | None:
        """Ask a job to stop: at once if it waits, at its next report if it runs; one that ended stays as it is."""
        with self._changed:
            job = self._jobs.get(name)
            if job is None:
                return None
            self._stop(name, job)
            return job.status()

    def wait(self, name: int, seconds: float | None = None) -> Status | None:
        """`status` when the job has ended or the queue was closed, or after so many seconds."""
        with self._changed:
            job = self._jobs.get(name)
            if job is None:
                return None
            self._changed.wait_for(lambda: job.state in ENDED or self.closed, seconds)
            return job.status()

    def busy(self) -> bool:
        """Whether a job runs or waits."""
        with self._changed:
            return self._occupied()

    def stop(self) -> None:
        """Take no more work and ask all to stop; returns at once."""
        with self._changed:
            self.closed = True
            self._background = None
            for name, job in self._jobs.items():
                self._stop(name, job)
            self._changed.notify_all()

    def close(self, seconds: float = 0.5, writing: float = 10.0) -> bool:
        """`stop`, and wait so long for the worker, or longer where it is writing; whether it has ended."""
        self.stop()
        self._worker.join(seconds)
        if self._worker.is_alive() and self._report is not None and self._report.held:
            self._worker.join(writing)
        return not self._worker.is_alive()

    def _occupied(self) -> bool:
        return bool(self._queue) or self._running is not None

    def _stop(self, name: int, job: _Job) -> None:
        if job.state == QUEUED:
            self._queue.remove(name)
            self._end(job, CANCELLED)
        elif job.state == RUNNING:
            job.stop = True

    def _end(self, job: _Job, state: str, *, result: Any = None, error: str | None = None) -> None:
        job.state, job.result, job.error, job.stage = state, result, error, state
        job.ended = self._clock()
        if state == DONE:
            job.fraction = 1.0
        job.work = _nothing  # and with it what it holds
        self._changed.notify_all()

    def _forget(self) -> None:
        ended = [(job.ended, name) for name, job in self._jobs.items() if job.state in ENDED]
        for number, (at, name) in enumerate(sorted(ended, reverse=True)):
            if number >= self.keep or at < self._clock() - self.keep_seconds:
                del self._jobs[name]

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self.closed or bool(self._queue) or self._background is not None
                )
                if self.closed:
                    return
                background, self._background = self._background, None
                if self._queue:
                    background = None
                    name = self._running = self._queue.pop(0)
                    job = self._jobs[name]
                    job.state, job.stage = RUNNING, "starting"
                    self._changed.notify_all()
            if background is not None:
                self._run_background(background)
            else:
                self._run(job)

    def _run_background(self, work: Work) -> None:
        try:
            work(Report(lambda stage, fraction: None, lambda: self.closed or bool(self._queue)))
        except JaxinterpError as error:
            log.debug("background work ended: %s", error)
        except Exception:
            log.exception("background work failed")

    def _run(self, job: _Job) -> None:
        def told(stage: str, fraction: float | None) -> None:
            with self._changed:
                job.stage = stage
                if fraction is not None:
                    job.fraction = max(job.fraction or 0.0, min(float(fraction), 1.0))
                self._changed.notify_all()

        state, result, line = FAILED, None, None
        try:
            report = self._report = Report(told, lambda: job.stop)
            result = job.work(report)
            state = DONE
        except Cancelled:
            state = CANCELLED
        except JaxinterpError as error:
            line = " ".join(str(error).split())
        except MemoryError:
            line = NO_MEMORY
            log.exception("out of memory")
        except Exception:
            line = UNEXPECTED
            log.exception("a job failed")
        with self._changed:
            self._running = self._report = None
            self._end(job, state, result=result, error=line)


def _nothing(report: Report) -> None:
    del report
