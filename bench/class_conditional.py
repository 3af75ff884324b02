"""Class-conditional benchmarks: search by the seed paper's oracle and supervised verifiers, FID and Inception Score.

python bench/class_conditional.py search --workflow my_api.json --classes imagenet.jsonl --output out \\
    --verifier class-probability --classifier my/vit-folder
python bench/class_conditional.py search ... --verifier fid --statistics reference.npz --features inception --weights W.pth
python bench/class_conditional.py statistics --pictures my/real --features inception --weights W.pth --output mine.npz
python bench/class_conditional.py evaluate --pictures out/images --statistics mine.npz --features inception --weights W.pth
python bench/class_conditional.py demo --output bench/output/classes

ComfyUI runs in this process. A class file is a prompt file (CSV, JSONL or text) with a column `class`: a name or a place
among the classifier's classes; without it the prompt itself is the class. FID and IS need torch-fidelity. Run a search again
to go on after a stop. The exit status is 1 if a prompt failed, 2 if the run could not begin or go on.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prompts import add_common, backend_of, modules, positive


def add_features(parser: argparse.ArgumentParser) -> None:
    """Add the options of the feature network."""
    parser.add_argument("--features", choices=("inception", "tiny"), default="inception",
                        help="network of FID and IS; tiny has random weights and is for trials (default inception)")  # fmt: skip
    parser.add_argument("--weights", type=Path, help="inception's: torch-fidelity's weights-inception-2015-12-05-6726825d.pth")
    parser.add_argument("--device", default="cpu", help="where the feature network and the classifier run (default cpu)")


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    (runs,) = modules("class_run")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    search = commands.add_parser("search", help="search for a picture of every class")
    search.add_argument("--classes", type=Path, required=True, help="class file: .csv, .jsonl or .txt")
    add_common(search)
    search.add_argument("--verifier", choices=runs.VERIFIERS, required=True, help="what chooses")
    search.add_argument("--held-out", choices=runs.VERIFIERS, default=runs.WORKFLOW, help="what scores the winners only")
    search.add_argument("--classifier", type=Path, help="folder of a transformers image classifier")
    search.add_argument("--clip", type=Path, help="folder of a transformers CLIPModel, for zero-shot classification")
    search.add_argument("--template", action="append", help='text of a class for --clip (default "a photo of a {}.")')
    search.add_argument("--statistics", type=Path, help=".npz with mu and sigma, for fid")
    add_features(search)
    statistics = commands.add_parser("statistics", help="mean and covariance of the features of a folder of pictures")
    evaluate = commands.add_parser("evaluate", help="FID and Inception Score of folders of pictures")
    statistics.add_argument("--pictures", type=Path, required=True)
    statistics.add_argument("--output", type=Path, required=True, help=".npz file to write")
    evaluate.add_argument("--pictures", type=Path, nargs="+", required=True)
    evaluate.add_argument("--statistics", type=Path, required=True, help=".npz with mu and sigma")
    evaluate.add_argument("--splits", type=int, default=10, help="of the Inception Score (default 10)")
    evaluate.add_argument("--output", type=Path, help=".csv file to write")
    for command in (statistics, evaluate):
        add_features(command)
    demo = commands.add_parser("demo", help="all of it on the demo model")
    demo.add_argument("--output", type=Path, required=True)
    demo.add_argument("--count", type=int, default=8, help="classes (default 8)")
    demo.add_argument("--repeats", type=int, default=4, help="pictures of each (default 4)")
    demo.add_argument("--budget", type=int, default=8, help="candidates of a search (default 8)")
    demo.add_argument("--threads", type=int, help="CPU threads")
    demo.add_argument("--fresh", action="store_true", help="move earlier results aside and start anew")
    return parser.parse_args(argv)


def search(args: argparse.Namespace) -> int:
    """Search for every class and write the summary; return how many searches failed."""
    files, flow, results, run, runs, summary = modules(
        "prompt_files", "prompt_workflow", "prompt_results", "prompt_run", "class_run", "prompt_summary"
    )
    positive(args, "repeats", "limit", "threads")
    args.template = args.template or list(modules("class_scores")[0].TEMPLATES)
    every = files.read_prompts(args.classes, args.column)
    prompts = every[: args.limit]
    workflow = flow.with_settings(flow.load_workflow(args.workflow), args.set)
    verifiers = runs.verifiers_of(args, every)
    digest = flow.workflow_hash(workflow, verifiers.settings)
    jobs = run.jobs_of(prompts, args.repeats or 1, args.seed)
    said = [f"workflow {args.workflow} ({digest}); {len(prompts)} classes, {args.repeats or 1} pictures each",
            f"verifier {args.verifier}, held out {args.held_out}"]  # fmt: skip
    out = results.Results(args.output, digest, args.fresh)
    print(*said, *out.notes, sep="\n")
    going = runs.class_run(workflow, backend_of(args), out, verifiers, args.picture_node)
    try:
        failed = going.all(jobs)
    finally:  # a run that stops says what it has
        rows = [row for _, row in run.pairs(jobs, out)]
        text = summary.write_summary(args.output, rows, (), (), said) if rows else ""
    print(f"\n{text}\n{going.skipped} pictures were there already; {failed} of {len(jobs)} failed")
    return failed


def statistics(args: argparse.Namespace) -> int:
    """Write the statistics of a folder of pictures."""
    features, gaussians = modules("class_features", "class_statistics")
    found, _ = features.Extractor(args.features, args.weights, args.device).of_folder(args.pictures)
    gaussians.save_statistics(args.output, gaussians.gaussian_of(found))
    print(f"{args.output}: mean and covariance of {found.shape[1]} features of {len(found)} pictures")
    return 0


def evaluate(args: argparse.Namespace) -> int:
    """Print FID and Inception Score of folders of pictures."""
    features, gaussians = modules("class_features", "class_statistics")
    extractor = features.Extractor(args.features, args.weights, args.device)
    reference = gaussians.load_statistics(args.statistics)
    table = {}
    for folder in args.pictures:
        found, logits = extractor.of_folder(folder)
        mean, deviation = features.inception_score(logits, args.splits)
        table[str(folder)] = {"pictures": len(found), "FID": features.fid(found, reference),
                              "IS": mean, "IS deviation": deviation}  # fmt: skip
    show(table)
    if args.output is not None:
        with args.output.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["folder", *next(iter(table.values()))])
            writer.writerows([folder, *values.values()] for folder, values in table.items())
    return 0


def demo(args: argparse.Namespace) -> int:
    """Run the demo and print its table."""
    positive(args, "count", "repeats", "budget", "threads")
    if args.count < 2 or args.count * args.repeats < 2:
        raise ValueError(f"--count {args.count}: a classifier needs two classes or more")
    args.comfyui, args.cpu, args.pack = None, True, [Path(__file__).resolve().parent.parent / "demo"]
    (on_demo,) = modules("class_demo")
    from bootstrap import load_package

    load_package()  # as `noise_search_demo`
    backend = backend_of(args)
    show(on_demo.demo(backend, args.output, args.count, args.repeats, args.budget, args.fresh))
    return 0


def show(table: dict[str, dict[str, Any]]) -> None:
    """Print a table in markdown."""
    columns = list(next(iter(table.values())))
    print("", "| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|", sep="\n")
    for name, values in table.items():
        print(f"| {name} | " + " | ".join(f"{value:.4g}" for value in values.values()) + " |")


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit status."""
    args = parse_args(argv)
    commands = {"search": search, "statistics": statistics, "evaluate": evaluate, "demo": demo}
    (server,) = modules("prompt_server")
    try:
        return 1 if commands[args.command](args) else 0
    except (ValueError, OSError, ImportError, server.BackendGone) as error:  # our own errors are ValueErrors with advice
        print(f"error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
