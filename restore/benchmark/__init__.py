"""How good a prior and a method are: on photographs, beside the classical tools, on the standard tasks."""

from __future__ import annotations

from restore.benchmark.report import Result, Run, markdown, read_results
from restore.benchmark.runs import pictures
from restore.benchmark.standard import TASKS, Task

__all__ = ["TASKS", "Result", "Run", "Task", "markdown", "pictures", "read_results"]
