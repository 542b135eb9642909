"""How good priors and methods are, measured: on photographs, and against posteriors that are known exactly."""

from __future__ import annotations

from restore.benchmark.report import Result, Run, markdown, read_results
from restore.benchmark.runs import pictures
from restore.benchmark.standard import TASKS, Task

__all__ = ["TASKS", "Result", "Run", "Task", "markdown", "pictures", "read_results"]
