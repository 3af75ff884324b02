"""Run the prompts of a benchmark through a workflow, with the seed paper's settings and numbers if wanted.

python bench/prompts.py --workflow my_api.json --prompts drawbench.csv --output out --server http://127.0.0.1:8188
python bench/prompts.py --workflow my_api.json --prompts color_val.txt shape_val.txt --output out --in-process \\
    --preset flux-compbench

The workflow is in API form (Workflow > Export (API)) and holds "%prompt%" where the prompt belongs and "%seed%" where
the seed does; `--set 2.value=%prompt%` puts them in. Prompt files are CSV, JSONL or text. Run the same command again to
go on after a stop. The exit status is 1 if a prompt failed, 2 if the run could not begin or go on.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PACKAGE = "noise_search_bench"


def modules(*names: str) -> list[Any]:
    """Return modules of this folder, as of one package whatever this script was started by."""
    here = Path(__file__).resolve().parent
    if str(here.parent / "demo") not in sys.path:
        sys.path.insert(0, str(here.parent / "demo"))
    from bootstrap import load_package

    load_package(PACKAGE, here)
    return [importlib.import_module(f"{PACKAGE}.{name}") for name in names]


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the options that runs of prompts and of classes share."""
    add = parser.add_argument
    add("--workflow", type=Path, required=True, help="workflow in API form")
    add("--output", type=Path, required=True, help="folder for images/, results.jsonl, summary.md and summary.csv")
    add("--set", action="append", default=[], metavar="NODE.INPUT=VALUE", help="set an input of the workflow")
    add("--picture-node", help="node whose pictures are kept; default: the one SaveImage, else the one PreviewImage")
    add("--seed", type=int, default=0, help="base of all seeds (default 0)")
    add("--repeats", type=int, help="pictures for each prompt (default 1, or the preset's)")
    add("--limit", type=int, help="only the first N prompts")
    add("--column", help="column or key of the prompt; default: the one called prompt, prompts, text or caption")
    add("--fresh", action="store_true", help="move earlier results aside and start anew")
    add("--comfyui", help="ComfyUI's folder, if in process (default: COMFYUI_PATH, or demo/setup.py's)")
    add("--cpu", action="store_true", help="use no GPU, if in process")
    add("--pack", type=Path, action="append", default=[], help="load this folder of nodes too, if in process")
    add("--threads", type=int, help="CPU threads, if in process")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    presets, summary = modules("prompt_presets", "prompt_summary")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=Path, nargs="+", required=True, help="prompt files: .csv, .jsonl, .txt")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--server", help="address of a running ComfyUI, such as http://127.0.0.1:8188")
    where.add_argument("--in-process", action="store_true", help="run ComfyUI in this process")
    add_common(parser)
    parser.add_argument("--allow-host", action="append", default=[], metavar="HOST", help="a server that may be elsewhere")
    parser.add_argument("--timeout", type=float, help="seconds for one prompt on a server (default 3600)")
    parser.add_argument("--preset", choices=presets.PRESETS, help="the seed paper's settings: "
                        + "; ".join(f"{name}: {preset.about}" for name, preset in presets.PRESETS.items()))  # fmt: skip
    parser.add_argument("--table", action="append", choices=summary.paper_tables(), help="show this table of the paper in "
                        "the summary (default: the preset's)")  # fmt: skip
    parser.add_argument("--judge", action="append", default=[], metavar="COLUMN=SCORE[*SCALE]",
                        help='which score of the run stands in a column of the paper: "CLIPScore=CLIP score*0.025"')  # fmt: skip
    return parser.parse_args(argv)


def backend_of(args: argparse.Namespace) -> Any:
    """Return where the prompts run."""
    if not getattr(args, "in_process", True):
        (server,) = modules("prompt_server")
        useless(args, "--server", "comfyui", "cpu", "pack", "threads")
        return server.ServerBackend(args.server, args.timeout or server.TIMEOUT, args.allow_host)
    useless(args, "--in-process", "allow_host", "timeout")
    (inprocess,) = modules("prompt_inprocess")
    backend = inprocess.InProcessBackend(args.comfyui, args.cpu, [path.resolve() for path in args.pack])
    if args.threads:
        import torch

        torch.set_num_threads(args.threads)
    return backend


def useless(args: argparse.Namespace, where: str, *names: str) -> None:
    """Raise a ValueError for an option that would be ignored."""
    for name in names:
        if getattr(args, name, None):
            raise ValueError(f"--{name.replace('_', '-')} has no meaning with {where}: leave it out")


def positive(args: argparse.Namespace, *names: str) -> None:
    """Raise a ValueError for a number below 1."""
    for name in names:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} {value}: expected at least 1")


def benchmark(args: argparse.Namespace) -> int:
    """Run a benchmark and write its summary; return how many prompts failed."""
    files, flow, results, run, presets, summary = modules(
        "prompt_files", "prompt_workflow", "prompt_results", "prompt_run", "prompt_presets", "prompt_summary"
    )
    positive(args, "repeats", "limit", "threads", "timeout")
    judges = [summary.parse_judge(text) for text in args.judge]
    prompts = files.read_all(args.prompts, args.column)[: args.limit]
    workflow, said = flow.with_settings(flow.load_workflow(args.workflow), args.set), []
    preset = presets.PRESETS.get(args.preset)
    if preset is not None:
        workflow, said = presets.apply_preset(workflow, preset)
        said = [f"preset {args.preset}: {preset.about}", *(f"preset: {line}" for line in said)]
    repeats = args.repeats or (preset.repeats if preset else 1)
    jobs = run.jobs_of(prompts, repeats, args.seed)
    digest = flow.workflow_hash(workflow)
    said = [f"workflow {args.workflow} ({digest}); {len(prompts)} prompts, {repeats} pictures each", *said]
    out = results.Results(args.output, digest, args.fresh)
    print(*said, *out.notes, sep="\n")
    going = run.Run(workflow, backend_of(args), out, args.picture_node)
    try:
        failed = going.all(jobs)
    finally:  # a run that stops says what it has
        rows = [row for _, row in run.pairs(jobs, out)]
        tables = args.table or (preset.tables if preset else ())
        text = summary.write_summary(args.output, rows, tables, judges, said) if rows else ""
    print(f"\n{text}\n{going.skipped} pictures were there already; {failed} of {len(jobs)} failed")
    return failed


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit status."""
    args = parse_args(argv)
    (server,) = modules("prompt_server")
    try:
        return 1 if benchmark(args) else 0
    except (ValueError, FileNotFoundError, server.BackendGone, server.PromptError) as error:  # they carry advice
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
