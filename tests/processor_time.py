"""A pytest plugin that states the processor time of a run: wall time says little on a machine that others use too."""

import os
from collections import Counter
from collections.abc import Generator
from typing import Any

import pytest


def processor_seconds(*, children: bool = True) -> float:
    """Return user and system time of this process and of the child processes that have ended."""
    spent = os.times()
    return spent.user + spent.system + children * (spent.children_user + spent.children_system)


class ProcessorTime:
    """Sum the processor time of the tests and of the run; workers of pytest-xdist send theirs to the controller.

    Args:
        longest: Number of tests to list, the most expensive first. What a fixture takes counts for the test that
            set it up.
    """

    def __init__(self, longest: int) -> None:
        self.longest = longest
        self.mark = 0.0
        self.tests: Counter[str] = Counter()
        self.workers: dict[str, float] = {}

    def pytest_runtest_logstart(self) -> None:
        self.mark = processor_seconds()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        now = processor_seconds()
        report.processor_seconds, self.mark = now - self.mark, now
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.tests[report.nodeid] += getattr(report, "processor_seconds", 0.0)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(session.config, "workeroutput"):
            session.config.workeroutput["processor_seconds"] = processor_seconds()

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        # a worker that crashed has no output
        self.workers[node.gateway.id] = getattr(node, "workeroutput", {}).get("processor_seconds", float("nan"))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        # the controller's children are the workers
        total = processor_seconds(children=not self.workers) + sum(self.workers.values())
        terminalreporter.section("processor time")
        for name, seconds in self.tests.most_common(self.longest):
            terminalreporter.line(f"{seconds:8.1f} s  {name}")
        workers = f" in {len(self.workers)} workers" if self.workers else ""
        terminalreporter.line(f"{total:8.1f} s of processor time (user and system), {len(self.tests)} tests{workers}")
