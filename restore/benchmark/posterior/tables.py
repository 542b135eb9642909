"""Tables, as Markdown for people and as CSV for programs."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Table:
    """What a benchmark found out.

    Attributes:
        title: One line.
        header: Titles of the columns; the first column is the contender.
        rows: Cells, as many as the header's.
        notes: Printed below the table.
        records: Every single figure, before any mean was taken, with the same keys in each.
    """

    title: str
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    records: list[dict[str, str | int | float]] = field(default_factory=list)

    def note(self, text: str) -> str:
        """The mark of a footnote, which is added if there is none of the same text."""
        if text not in self.notes:
            self.notes.append(text)
        return f"[{self.notes.index(text) + 1}]"

    def markdown(self) -> str:
        """The table in Markdown, columns aligned for reading it as it is.

        Example:
            >>> print(Table("Speed", ["who", "seconds"], [["dps", "1.5"]]).markdown())
            **Speed**
            <BLANKLINE>
            | who | seconds |
            |:----|--------:|
            | dps |     1.5 |
        """
        widths = [max(len(row[i]) for row in [self.header, *self.rows]) for i in range(len(self.header))]
        lines = [f"**{self.title}**", "", _line(self.header, widths)]
        rules = ["-" * (width + 1) for width in widths]
        lines.append("|:" + rules[0] + "|" + "".join(f"{rule}:|" for rule in rules[1:]))
        lines += [_line(row, widths) for row in self.rows]
        if self.notes:
            lines += ["", *(f"[{i}] {note}  " for i, note in enumerate(self.notes, 1))]
        return "\n".join(lines)

    def write_csv(self, path: Path) -> None:
        """Every single figure, a line each, after a line of titles."""
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self.records[0]) if self.records else [], lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.records)


def _line(cells: list[str], widths: list[int]) -> str:
    aligned = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
    return "| " + " | ".join(aligned) + " |"
