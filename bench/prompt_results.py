"""The results of a benchmark run: one JSON line for each picture, written as it comes, so that a run can go on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

ROWS, BROKEN, PICTURES, OTHERS = "results.jsonl", "results.broken.txt", "images", "others"


class ResultsError(ValueError):
    """An output folder cannot be used for this run; says why and what to do."""


def read_rows(folder: Path) -> tuple[list[dict[str, Any]], str | None]:
    """Read the rows of an output folder; a last line that is cut off is set aside.

    Returns:
        The rows in order, and what was set aside, in words; None if nothing was.

    Raises:
        ResultsError: Naming the file and line, if another line is no JSON object.
    """
    path = folder / ROWS
    if not path.exists():
        return [], None
    data = path.read_bytes()
    lines = data.split(b"\n")
    rows: list[dict[str, Any]] = []
    good = 0  # bytes up to the end of the last whole line
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                row = json.loads(line)
                if not isinstance(row, dict) or number == len(lines):  # no newline after it: it was being written
                    raise ValueError("not a whole row")
            except ValueError as error:
                if any(rest.strip() for rest in lines[number:]):
                    raise ResultsError(f"{path}, line {number}: not a JSON object ({error}); mend or delete the line") from error
                return rows, _set_aside(path, data, good, number)
            rows.append(row)
        good += len(line) + 1
    return rows, None


def _set_aside(path: Path, data: bytes, good: int, number: int) -> str:
    with path.with_name(BROKEN).open("ab") as file:
        file.write(data[good:].rstrip(b"\n") + b"\n")
    with path.open("r+b") as file:
        file.truncate(good)
    return f"{path}: line {number} was cut off; it is set aside in {BROKEN} and its picture is made again"


class Results:
    """The rows of one run's output folder.

    Attributes:
        folder: The folder; its pictures are under `images`, further ones of a run under `others`.
        notes: What was done to what was found there, in words.
    """

    def __init__(self, folder: Path, workflow: str, fresh: bool = False) -> None:
        """Open a folder and read what it holds.

        Args:
            folder: Made if it is not there.
            workflow: Hash of the run's workflow.
            fresh: Move what an earlier run left to a subfolder `old-N`, and start anew.

        Raises:
            ResultsError: If rows of another workflow are there and `fresh` is not set, or a row cannot be read.
        """
        self.folder, self.workflow = Path(folder), workflow
        self.notes: list[str] = []
        self.folder.mkdir(parents=True, exist_ok=True)
        if fresh:
            self._move_away()
        rows, said = read_rows(self.folder)
        self.notes += [said] if said else []
        others = sorted({str(row.get("workflow")) for row in rows} - {workflow})
        if others:
            raise ResultsError(
                f"{self.folder} holds results of another workflow or setting ({', '.join(others)}; this one is {workflow}):"
                " choose another output folder, or --fresh to move them aside"
            )
        self._rows = {(row["id"], row["repeat"]): row for row in rows}
        for name in (PICTURES, OTHERS):
            (self.folder / name).mkdir(exist_ok=True)

    def _move_away(self) -> None:
        found = [self.folder / name for name in (ROWS, BROKEN, PICTURES, OTHERS) if (self.folder / name).exists()]
        if not found:
            return
        number = 1
        while (old := self.folder / f"old-{number}").exists():
            number += 1
        old.mkdir()
        for path in found:
            path.rename(old / path.name)
        self.notes.append(f"earlier results moved to {old}")

    def done(self, prompt_id: str, repeat: int, text: str, seed: int) -> dict[str, Any] | None:
        """Return the row of a picture that is there and needs no new run; None if it has to be made.

        Rows that ended with an error, of another text or seed, or whose picture is gone, do not count.
        """
        row = self._rows.get((prompt_id, repeat))
        if row is None or row["error"] is not None or (row["prompt"], row["seed"]) != (text, seed):
            return None
        return row if all((self.folder / name).exists() for name in row["files"]) else None

    def add(self, row: dict[str, Any]) -> None:
        """Write a row; it is on the disk when this returns."""
        line = json.dumps({"workflow": self.workflow, **row}, ensure_ascii=False, allow_nan=False)
        with (self.folder / ROWS).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._rows[row["id"], row["repeat"]] = row

    def row(self, prompt_id: str, repeat: int) -> dict[str, Any] | None:
        """Return the last row of a picture."""
        return self._rows.get((prompt_id, repeat))
