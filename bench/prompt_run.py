"""Run every prompt of a benchmark through a workflow, and keep what came out."""

from __future__ import annotations

import hashlib
import io
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from .prompt_files import Prompt
from .prompt_results import OTHERS, PICTURES, Results
from .prompt_server import PromptError
from .prompt_workflow import (
    Workflow,
    WorkflowError,
    fill,
    picture_node,
    placeholders,
    search_behind,
    with_reports,
)

PNG = b"\x89PNG"


class Backend(Protocol):
    """A ComfyUI: `ServerBackend` or `InProcessBackend`."""

    def unknown(self, types: Iterable[str]) -> list[str]: ...
    def run(self, workflow: Workflow) -> dict[str, Any]: ...
    def picture(self, entry: dict[str, str]) -> bytes: ...


@dataclass(frozen=True)
class Job:
    """One picture to make: a prompt, which of its pictures, and the seed."""

    prompt: Prompt
    repeat: int
    seed: int

    @property
    def name(self) -> str:
        """Of its picture, without ending."""
        return f"{self.prompt.id}_{self.repeat}"


def jobs_of(prompts: Iterable[Prompt], repeats: int, seed: int) -> list[Job]:
    """Return the jobs of a run; their seeds are below 2^50, differ, and do not depend on the other prompts."""
    return [Job(p, r, derived_seed(seed, p.id, r)) for p in prompts for r in range(repeats)]


def derived_seed(seed: int, prompt_id: str, repeat: int) -> int:
    """Return the seed of one picture: the same in every run of the same base seed."""
    digest = hashlib.sha256(f"{seed}/{prompt_id}/{repeat}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 14


@dataclass
class Run:
    """A benchmark run.

    Attributes:
        workflow: The template, with its placeholders.
        backend: Where it runs.
        results: Where its results go.
        picture_node: Node whose pictures are kept; None for the one there is.
        values: What placeholders beside %prompt% and %seed% stand for, for a job.
        prepare: Changes a job's workflow before it runs.
        finished: Told of every job whose pictures are there, those of an earlier run too, in the order of the jobs.
        say: Where progress goes.
    """

    workflow: Workflow
    backend: Backend
    results: Results
    picture_node: str | None = None
    values: Callable[[Job], dict[str, str | int]] = lambda job: {}
    prepare: Callable[[Job, Workflow], Workflow] = lambda job, workflow: workflow
    finished: Callable[[Job, dict[str, Any]], None] = lambda job, row: None
    say: Callable[[str], None] = print
    skipped: int = field(default=0, init=False)

    def all(self, jobs: list[Job]) -> int:
        """Run the jobs that have no result yet; return how many failed.

        Raises:
            WorkflowError: Before anything runs, if the workflow cannot be used for these jobs.
            BackendGone: If no prompt can be run any more; what is done is kept.
        """
        self.check(jobs)
        failed = 0
        for number, job in enumerate(jobs, start=1):
            row = self.results.done(job.prompt.id, job.repeat, job.prompt.text, job.seed)
            if row is not None:
                self.skipped += 1
            else:
                row = self.one(job)
                self.results.add(row)
                self.say(f"{number} of {len(jobs)}  {job.name}  {_in_words(row)}")
            if row["error"] is None:
                self.finished(job, row)
            failed += row["error"] is not None
        return failed

    def check(self, jobs: list[Job]) -> None:
        """Raise a WorkflowError if the workflow cannot be used for these jobs."""
        there = placeholders(self.workflow)
        if "prompt" not in there:
            raise WorkflowError('no input holds "%prompt%": put it where the prompt belongs, or --set NODE.INPUT=%prompt%')
        if "seed" not in there and max(job.repeat for job in jobs) > 0:
            raise WorkflowError('several pictures a prompt need a "%seed%": put it in, or --set NODE.INPUT=%seed%')
        picture_node(self.workflow, self.picture_node)
        workflow = self.prepare(jobs[0], self._filled(jobs[0])[0])
        unknown = self.backend.unknown(sorted({node["class_type"] for node in workflow.values()}))
        if unknown:
            raise WorkflowError(f"this ComfyUI has no node type {', '.join(unknown)}: install the pack that has it")

    def _filled(self, job: Job) -> tuple[Workflow, dict[str, str]]:
        values = {"prompt": job.prompt.text, "seed": job.seed, **self.values(job)}
        return with_reports(fill(self.workflow, values))

    def one(self, job: Job) -> dict[str, Any]:
        """Run one job and return its row; an error of the prompt is in the row."""
        row: dict[str, Any] = {
            "id": job.prompt.id, "repeat": job.repeat, "prompt": job.prompt.text, "category": job.prompt.category,
            "metadata": job.prompt.metadata, "seed": job.seed, "files": [], "error": None,
        }  # fmt: skip
        started = time.perf_counter()
        try:
            workflow, reports = self._filled(job)
            outputs = self.backend.run(self.prepare(job, workflow))
            node_id = picture_node(workflow, self.picture_node) or _shown_by(outputs)
            row["files"] = self._save(job, node_id, outputs)
            found = {search: json.loads(outputs[shown]["text"][0]) for shown, search in reports.items()}
            row |= search_values(found, search_behind(workflow, node_id))
        except PromptError as error:
            row["error"] = str(error)
        row["seconds"] = round(time.perf_counter() - started, 3)
        return row

    def _save(self, job: Job, node_id: str, outputs: dict[str, Any]) -> list[str]:
        """Save the pictures of a node; return their paths in the output folder, the best first."""
        entries = outputs.get(node_id, {}).get("images") or []
        if not entries:
            raise PromptError(f"node {node_id} gave no picture; choose another with --picture-node")
        files = [f"{PICTURES}/{job.name}.png"]
        files += [f"{OTHERS}/{job.name}_{number}.png" for number in range(2, len(entries) + 1)]
        for name, entry in zip(files, entries, strict=True):
            path = self.results.folder / name
            partial = path.with_suffix(".partial")  # a picture that is there is whole
            partial.write_bytes(as_png(self.backend.picture(entry)))
            partial.replace(path)
        return files


def as_png(data: bytes) -> bytes:
    """Return a picture's file as PNG; a PNG stays as it is, with what ComfyUI wrote into it."""
    if data.startswith(PNG):
        return data
    from PIL import Image

    out = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("RGB").save(out, "PNG")
    return out.getvalue()


def search_values(reports: dict[str, Any], chosen: str | None) -> dict[str, Any]:
    """Return what a row says of its searches.

    Args:
        reports: Report of every search node by node id; of a latent batch, a list of one for each row.
        chosen: The search that the picture comes from; None if it comes from none.

    Returns:
        `baseline` and `best` {verifier part: score}, `held_out` {"verifier", "baseline", "best"} of the chosen search
        (means over the rows of a batch), `model_calls`, `verifier_calls` and `search_seconds` of all, and `reports`.
    """
    if not reports:
        return {}
    every = [one for report in reports.values() for one in _as_list(report)]
    row: dict[str, Any] = {
        "model_calls": sum(one["model_calls"] for one in every),
        "verifier_calls": sum(one["verifier_calls"] for one in every),
        "search_seconds": round(sum(one["seconds"]["total"] for one in every), 3),
        "reports": reports,
    }
    if chosen is not None:
        picked = _as_list(reports[chosen])
        row["baseline"] = _mean_scores([one["baseline"]["scores"] for one in picked])
        row["best"] = _mean_scores([one["best"]["scores"] for one in picked])
        row["held_out"] = _held_out(picked)
    return row


def _held_out(picked: list[dict[str, Any]]) -> dict[str, Any] | None:
    if picked[0]["held_out"] is None:
        return None
    scores = {
        which: _mean_scores([{"": one["held_out"]["scores"].get(str(one[which]["index"]))} for one in picked])[""]
        for which in ("baseline", "best")
    }
    return {"verifier": picked[0]["held_out"]["verifier"], **scores}


def _mean_scores(scores: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Return the mean of every score; None where one is missing."""
    columns = {name: [one.get(name) for one in scores] for name in scores[0]}
    return {
        name: None if None in column else math.fsum(column) / len(column) for name, column in columns.items()
    }  # fmt: skip


def _as_list(report: Any) -> list[dict[str, Any]]:
    return report if isinstance(report, list) else [report]


def _shown_by(outputs: dict[str, Any]) -> str:
    """Return the one node that showed pictures: saved ones before previews."""
    shown = {node_id: output["images"] for node_id, output in outputs.items() if output.get("images")}
    saved = [node_id for node_id, entries in shown.items() if entries[0].get("type") == "output"] or list(shown)
    if len(saved) != 1:
        raise PromptError(f"{len(saved)} nodes gave pictures ({', '.join(saved)}); choose one with --picture-node")
    return saved[0]


def _in_words(row: dict[str, Any]) -> str:
    if row["error"] is not None:
        return f"FAILED: {row['error']}"
    scores = "  ".join(
        f"{name} {row['baseline'][name]:.4g} -> {best:.4g}" for name, best in (row.get("best") or {}).items()
        if best is not None and row["baseline"].get(name) is not None
    )  # fmt: skip
    return f"{row['seconds']:.1f} s  {scores}".rstrip()


def pairs(jobs: Iterable[Job], results: Results) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Yield the jobs that have a row, with it."""
    for job in jobs:
        row = results.row(job.prompt.id, job.repeat)
        if row is not None:
            yield job, row
