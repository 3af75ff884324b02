"""The prompt runner as a command, against a stand-in for ComfyUI that counts: what runs, what is kept, what is skipped."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from noise_search.bench import prompt_server
from noise_search.bench.prompt_files import Prompt
from noise_search.bench.prompt_run import derived_seed, jobs_of
from noise_search.bench.prompt_server import BackendGone, PromptError, ServerBackend, check_host

BENCH = Path(__file__).resolve().parent.parent.parent / "bench"
spec = importlib.util.spec_from_file_location("bench_fakes", Path(__file__).with_name("fakes.py"))
fakes = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fakes)

WORKFLOW = {
    "1": {"class_type": "Text", "inputs": {"text": "%prompt%"}},
    "2": {"class_type": "NSSearchSampler", "inputs": {"seed": "%seed%", "budget": 4, "positive": ["1", 0]}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0]}},
}


class Bench:
    """The command, with a workflow and a prompt file."""

    def __init__(self, folder: Path, server: fakes.FakeServer) -> None:
        self.out, self.server = folder / "out", server
        self.workflow, self.prompts = folder / "w.json", folder / "p.csv"
        self.workflow.write_text(json.dumps(WORKFLOW))
        self.write("one", "two", "two")

    def write(self, *prompts: str) -> None:
        self.prompts.write_text("prompt,category\n" + "".join(f"{p},{'xy'[n % 2]}\n" for n, p in enumerate(prompts)))

    def run(self, *options: str, code: int = 0) -> str:
        command = [sys.executable, str(BENCH / "prompts.py"), "--workflow", str(self.workflow), "--prompts", str(self.prompts)]
        command += ["--output", str(self.out), "--server", self.server.url, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    @property
    def rows(self) -> list[dict]:
        return [json.loads(line) for line in (self.out / "results.jsonl").read_text().splitlines()]


@pytest.fixture
def bench(tmp_path):  # noqa: ANN201
    server = fakes.FakeServer()
    yield Bench(tmp_path, server)
    server.close()


def test_one_row_and_one_picture_for_every_prompt_and_repeat(bench):
    bench.run("--repeats", "2")
    assert len(bench.server.posted) == 6
    assert [(r["id"], r["repeat"], r["prompt"]) for r in bench.rows] == [
        (f"p-{n:05d}", repeat, text) for n, text in enumerate(("one", "two", "two")) for repeat in (0, 1)
    ]
    for posted, row in zip(bench.server.posted, bench.rows, strict=True):
        assert posted["1"]["inputs"]["text"] == row["prompt"]
        assert posted["2"]["inputs"]["seed"] == row["seed"] == derived_seed(0, row["id"], row["repeat"]) < 2**50
    assert len({row["seed"] for row in bench.rows}) == 6
    row = bench.rows[0]
    assert row["baseline"] == {"A": 1.0, "B": 1.0} and row["best"] == {"A": 3.0, "B": 2.0}
    assert row["held_out"] == {"verifier": "H", "baseline": 10.0, "best": 30.0}
    assert (row["model_calls"], row["verifier_calls"], row["search_seconds"]) == (8, 4, 0.5)
    assert row["reports"]["2"]["seed"] == str(row["seed"]) and row["error"] is None
    assert row["files"] == ["images/p-00000_0.png", "others/p-00000_0_2.png"]
    assert sorted(path.name for path in (bench.out / "images").iterdir()) == [
        f"p-{n:05d}_{repeat}.png" for n in range(3) for repeat in (0, 1)
    ]
    assert Image.open(bench.out / row["files"][0]).getpixel((0, 0)) == fakes.PICTURE


def test_a_second_run_posts_nothing_and_a_longer_one_only_what_is_new(bench):
    bench.run()
    before = bench.rows
    assert "3 pictures were there already; 0 of 3 failed" in bench.run()
    assert len(bench.server.posted) == 3 and bench.rows == before
    bench.write("one", "two", "two", "three")
    bench.run()
    assert [w["1"]["inputs"]["text"] for w in bench.server.posted[3:]] == ["three"]
    bench.write("one", "other", "two", "three")  # a changed prompt, and a picture that was deleted
    (bench.out / "images" / "p-00003_0.png").unlink()
    bench.run()
    assert [w["1"]["inputs"]["text"] for w in bench.server.posted[4:]] == ["other", "three"]
    bench.run("--seed", "1", "--limit", "1")
    assert len(bench.server.posted) == 7


def test_a_cut_off_line_is_set_aside_and_made_again(bench):
    bench.run()
    path = bench.out / "results.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    said = bench.run()
    assert "line 3 was cut off; it is set aside in results.broken.txt" in said
    assert len(bench.server.posted) == 4
    assert (bench.out / "results.broken.txt").read_bytes().rstrip(b"\n") == whole[:-40].split(b"\n")[-1]
    assert [row["id"] for row in bench.rows] == ["p-00000", "p-00001", "p-00002"]
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + "nonsense\n" + lines[2])
    assert "results.jsonl, line 2: not a JSON object" in bench.run(code=2)
    assert len(bench.server.posted) == 4


def test_another_workflow_needs_another_folder_or_fresh(bench):
    bench.run()
    said = bench.run("--set", "2.budget=9", code=2)
    assert "results of another workflow" in said and "--fresh" in said
    assert len(bench.server.posted) == 3
    assert "moved to" in bench.run("--set", "2.budget=9", "--fresh")
    assert len(bench.server.posted) == 6 and bench.server.posted[-1]["2"]["inputs"]["budget"] == 9
    assert len(bench.rows) == 3
    assert len((bench.out / "old-1" / "results.jsonl").read_text().splitlines()) == 3
    assert len(list((bench.out / "old-1" / "images").iterdir())) == 3


def test_a_prompt_that_fails_is_recorded_and_the_run_goes_on(bench):
    bench.write("one", "broken", "refused", "four")
    said = bench.run(code=1)
    assert "2 of 4 failed" in said
    assert [row["error"] for row in bench.rows] == [
        None, "node 2 (N): ValueError: no", "refused: Prompt failed; node 1 (T): Bad value: text", None,
    ]  # fmt: skip
    assert bench.rows[1]["files"] == []
    assert "failed: 2" in (bench.out / "summary.md").read_text()
    bench.run(code=1)  # only those that failed are tried again
    assert [w["1"]["inputs"]["text"] for w in bench.server.posted[4:]] == ["broken", "refused"]


def test_what_cannot_run_is_said_before_anything_is_posted(bench):
    assert "several pictures a prompt need" in bench.run("--set", "2.seed=7", "--repeats", "2", code=2)
    assert 'no input holds "%prompt%"' in bench.run("--set", "1.text=x", code=2)
    bench.server.unknown = {"NSSearchSampler"}
    assert "no node type NSSearchSampler" in bench.run(code=2)
    bench.server.unknown = set()
    assert "--judge" in bench.run("--judge", "Beauty=A", code=2)
    assert "is not on this machine" in bench.run("--server", "http://example.org:8188", code=2)
    assert "does not answer" in bench.run("--server", "http://127.0.0.1:9", code=2)
    assert "--threads has no meaning with --server" in bench.run("--threads", "1", code=2)
    assert "--repeats 0" in bench.run("--repeats", "0", code=2)
    assert bench.server.posted == []


def test_the_summary_has_the_means_and_the_papers_numbers(bench):
    bench.run("--table", "drawbench-flux", "--judge", "CLIPScore=A*0.5", "--judge", "Aesthetic=held-out H")
    with (bench.out / "summary.csv").open() as file:
        found = {(line["table"], line["row"], line["column"]): float(line["value"]) for line in csv.DictReader(file)}
    own, best = "this run: own seed", "this run: search"
    assert found["This run", own, "A"] == 1.0
    assert found["This run", best, "A"] == pytest.approx((3 + 4 + 5) / 3)
    assert found["This run by category", "x: search", "A"] == pytest.approx((3 + 5) / 2)
    assert found["This run", best, "held-out H"] == 30.0
    assert found["This run", best, "model calls a picture"] == 8
    (title,) = {table for table, _, _ in found if table.startswith("DrawBench")}
    assert found[title, best, "CLIPScore"] == pytest.approx(2.0) and found[title, own, "CLIPScore"] == 0.5
    assert found[title, best, "Aesthetic"] == 30.0
    assert (title, best, "LLM grader") not in found and (title, best, "ImageReward") not in found
    assert found[title, "paper: Ensemble, random search", "LLM grader"] == 88.18
    text = (bench.out / "summary.md").read_text()
    assert "| this run: search | 30 | 2 |  |  |" in text  # what no judge of the run measured stays empty
    assert "2501.09732" in text and "the paper's column CLIPScore: this run's A times 0.5" in text


def test_the_paper_tables_are_complete():
    tables = json.loads((BENCH / "paper_tables.json").read_text())["tables"]
    assert {table["id"]: (len(table["rows"]), len(table["columns"])) for table in tables} == {
        "compbench-flux": (5, 6), "drawbench-flux": (13, 4), "sdxl-dpo": (3, 3), "small-and-big": (4, 5),
    }  # fmt: skip
    for table in tables:
        assert all(list(row["values"]) == table["columns"] for row in table["rows"])


def test_only_this_machine_unless_allowed():
    for url in ("http://127.0.0.1:8188/", "http://localhost:1", "http://[::1]:1", "http://127.9.9.9"):
        assert check_host(url) == url.rstrip("/")
    for url in ("http://0.0.0.0:8188", "http://192.168.0.2:8188", "http://localhost.example.org", "http://127.0.0.1@example.org"):
        with pytest.raises(ValueError, match="--allow-host"):
            check_host(url)
    assert check_host("http://192.168.0.2:8188", ["192.168.0.2"]) == "http://192.168.0.2:8188"
    for url in ("file:///etc/passwd", "127.0.0.1:8188", "http://"):
        with pytest.raises(ValueError, match="expected an address"):
            check_host(url)


def test_a_redirect_is_not_followed(bench):
    backend = ServerBackend(bench.server.url)
    with pytest.raises(PromptError, match="302"):
        backend._get("/elsewhere")
    with pytest.raises(BackendGone, match="does not answer"):
        ServerBackend("http://127.0.0.1:9")._get("/queue")


def test_a_prompt_that_the_server_forgets_is_given_up(bench, monkeypatch):
    monkeypatch.setattr(prompt_server, "FORGOTTEN", 0.05)
    monkeypatch.setattr(bench.server, "history", lambda workflow: {})
    with pytest.raises(PromptError, match="no longer knows the prompt"):
        ServerBackend(bench.server.url).run({"1": {"class_type": "Text", "inputs": {"text": "x"}}})


def test_seeds_do_not_depend_on_the_other_prompts():
    few, many = jobs_of([Prompt("b", "x")], 1, 5), jobs_of([Prompt("a", "x"), Prompt("b", "x")], 2, 5)
    assert few[0].seed == many[2].seed and len({job.seed for job in many}) == 4
