"""Class-conditional search on the demo model: its prompts are the classes, its tiny CLIP the zero-shot classifier.

The real pictures are drawn by demo/shapes.py, and the features are those of a small network of random weights, so that FID
and IS compare the runs of this table with one another and with nothing else.
"""

from __future__ import annotations

import importlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .class_features import TINY, Extractor, fid, inception_score
from .class_run import CLASS_PROBABILITY, FID, WORKFLOW, Verifiers, accuracy, class_run
from .class_scores import ZeroShotClip
from .class_statistics import Gaussian, GreedyFid, eight_bit, gaussian_of
from .prompt_files import Prompt
from .prompt_results import PICTURES, Results
from .prompt_run import jobs_of
from .prompt_workflow import load_workflow, with_settings, workflow_hash

HERE = Path(__file__).resolve().parent
CLIP = HERE.parent / "demo" / "weights" / "noise-search-demo-clip"
DRAWN = 64  # real pictures of each class
SEARCHES = {"own seed": (WORKFLOW, 1), "class probability": (CLASS_PROBABILITY, None), "greedy FID": (FID, None)}
COLUMNS = ("FID (tiny)", "IS (CLIP)", "class probability", "right by CLIP", "right by the oracle")


def classes(count: int) -> list[str]:
    """Return the first of the demo's prompts in a fixed random order."""
    shapes = importlib.import_module("noise_search_demo.shapes")
    return [scene.prompt for scene in random.Random(0).sample(shapes.all_scenes(), count)]


def drawn_statistics(names: Sequence[str], extractor: Extractor) -> Gaussian:
    """Return the statistics of drawn pictures, `DRAWN` of each class."""
    shapes = importlib.import_module("noise_search_demo.shapes")
    generator = torch.Generator().manual_seed(0)
    scenes = [shapes.parse_prompt(name) for name in names for _ in range(DRAWN)]
    return gaussian_of(extractor.features(eight_bit(shapes.draw(scenes, generator))))


def demo(
    backend: Any, output: Path, count: int, repeats: int, budget: int, fresh: bool = False
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Search for pictures of some classes, by each of `SEARCHES`, and measure all of them alike.

    Args:
        backend: ComfyUI in process, with the demo's nodes.
        output: A folder for each search is made in it.
        count: Classes.
        repeats: Pictures of each.
        budget: Candidates of each search.
        fresh: Start anew.

    Returns:
        By search, by one of `COLUMNS`.
    """
    names = classes(count)
    prompts = [Prompt(f"class-{index:05d}", name) for index, name in enumerate(names)]
    jobs = jobs_of(prompts, repeats, seed=0)
    extractor, classifier = Extractor(TINY), ZeroShotClip(CLIP, names, ["{}"])
    statistics = drawn_statistics(names, extractor)
    table = {}
    for title, (verifier, images) in SEARCHES.items():
        workflow = with_settings(load_workflow(HERE / "demo_workflow.json"), [f"10.budget={images or budget}"])
        settings = {"verifier": verifier, "classes": names}
        folder = output / title.replace(" ", "-")
        results = Results(folder, workflow_hash(workflow, settings), fresh)
        greedy = GreedyFid(statistics, extractor.features) if verifier == FID else None
        run = class_run(workflow, backend, results, Verifiers(verifier, WORKFLOW, classifier, greedy), None)
        if run.all(jobs):
            raise RuntimeError(f"{title}: a search failed; see {folder}")
        rows = [results.row(job.prompt.id, job.repeat) for job in jobs]
        right, probability, logits = accuracy(results, jobs, classifier)
        features, _ = extractor.of_folder(folder / PICTURES)
        oracle = sum(row["held_out"]["best"] for row in rows) / len(rows)
        values = (fid(features, statistics), inception_score(logits, 1)[0], probability, right, oracle)
        table[title] = dict(zip(COLUMNS, values, strict=True))
    return table
