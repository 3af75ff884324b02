"""Verifiers of a class run: where they are connected, what a run that goes on remembers, which options go together."""

from __future__ import annotations

import argparse
import io
from typing import Any

import pytest
import torch
from PIL import Image

pytest.importorskip("torch_fidelity")

from noise_search.bench.class_run import Verifiers, class_run, verifiers_of
from noise_search.bench.class_statistics import Gaussian, GreedyFid
from noise_search.bench.prompt_files import Prompt
from noise_search.bench.prompt_inprocess import HANDOVER, Handover, connect_verifiers
from noise_search.bench.prompt_results import Results
from noise_search.bench.prompt_run import jobs_of
from noise_search.bench.prompt_workflow import WorkflowError

WORKFLOW = {
    "1": {"class_type": "NSSearchSampler", "inputs": {"seed": "%seed%", "text": "%prompt%", "verifier": ["9", 0]}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
}
JOBS = jobs_of([Prompt("a", "red"), Prompt("b", "green"), Prompt("c", "blue")], 1, 0)


class Backend:
    """Paints every picture in its prompt's colour, without a search, and keeps what it was handed."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def unknown(self, types: Any) -> list[str]:
        return []

    def run(self, workflow: dict[str, Any]) -> dict[str, Any]:
        source = workflow["bench_verifier"]["inputs"]
        verifier = Handover().get(**source)[0]
        color = workflow["1"]["inputs"]["text"]
        self.seen.append((color, verifier.count))
        empty = (
            '{"model_calls": 0, "verifier_calls": 0, "seconds": {"total": 0}, "baseline": {"scores": {}}, "best": {"scores": {}},'
        )
        return {"2": {"images": [{"color": color}]}, "bench_report_1": {"text": [empty + '"held_out": null}']}}

    def picture(self, entry: dict[str, str]) -> bytes:
        out = io.BytesIO()
        Image.new("RGB", (4, 4), entry["color"]).save(out, "PNG")
        return out.getvalue()


def greedy() -> GreedyFid:
    unit = Gaussian(torch.zeros(3).double(), torch.eye(3).double())
    return GreedyFid(unit, lambda pictures: pictures.double().mean((2, 3)) / 255)


def test_a_run_that_goes_on_takes_the_earlier_pictures_into_its_set(tmp_path):
    backend, first, second = Backend(), greedy(), greedy()
    class_run(WORKFLOW, backend, Results(tmp_path, "h"), Verifiers("fid", greedy=first), None).all(JOBS[:2])
    assert backend.seen == [("red", 0), ("green", 1)] and first.count == 2
    class_run(WORKFLOW, backend, Results(tmp_path, "h"), Verifiers("fid", greedy=second), None).all(JOBS)
    assert backend.seen[2:] == [("blue", 2)] and second.count == 3
    first.accept(torch.tensor([0, 0, 255], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 4, 4))
    picture = torch.rand(1, 4, 4, 3)
    assert torch.equal(first.score(picture), second.score(picture))  # as one run of all three


def test_verifiers_take_the_place_of_the_workflows():
    verifier, held_out = greedy(), greedy()
    found = connect_verifiers(WORKFLOW, "a_0", verifier=verifier, held_out=held_out)
    assert found["1"]["inputs"]["verifier"] == ["bench_verifier", 0]
    assert found["1"]["inputs"]["held_out"] == ["bench_held_out", 0]
    assert found["bench_verifier"] == {"class_type": HANDOVER, "inputs": {"key": "verifier", "run": "a_0"}}
    assert Handover().get("verifier", "a_0") == (verifier,) and Handover().get("held_out", "a_0") == (held_out,)
    assert found["2"] == WORKFLOW["2"] and WORKFLOW["1"]["inputs"]["verifier"] == ["9", 0]
    assert connect_verifiers(WORKFLOW, "a_0", verifier=None) == WORKFLOW
    with pytest.raises(WorkflowError, match="no search node"):
        class_run({"2": WORKFLOW["2"]}, Backend(), None, Verifiers("fid"), None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"verifier": "fid"}, "needs --statistics"),
        ({"verifier": "workflow", "statistics": "s.npz"}, "needs --statistics"),
        ({"verifier": "class-logit"}, "one of --classifier and --clip"),
        ({"verifier": "class-logit", "classifier": "a", "clip": "b"}, "one of --classifier and --clip"),
        ({"verifier": "workflow", "clip": "b"}, "one of --classifier and --clip"),
    ],
)
def test_options_that_do_not_go_together(options, said):
    names = ("held_out", "classifier", "clip", "template", "statistics", "features", "weights", "device")
    args = argparse.Namespace(**{name: None for name in names} | {"held_out": "workflow"} | options)
    with pytest.raises(ValueError, match=said):
        verifiers_of(args, [job.prompt for job in JOBS])
