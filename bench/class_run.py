"""Class-conditional runs: the benchmark runner with verifiers of this process in the search nodes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .class_scores import LOGIT, PROBABILITY, Classifier, ClassScore, ImageClassifier, ZeroShotClip, class_index
from .class_statistics import GreedyFid, load_statistics
from .prompt_files import Prompt, PromptFileError
from .prompt_inprocess import connect_verifiers
from .prompt_results import Results
from .prompt_run import Job, Run
from .prompt_workflow import SEARCH_NODES, Workflow, WorkflowError

CLASS_PROBABILITY, CLASS_LOGIT, FID, WORKFLOW = "class-probability", "class-logit", "fid", "workflow"
VERIFIERS = (CLASS_PROBABILITY, CLASS_LOGIT, FID, WORKFLOW)
CLASS_COLUMN = "class"


@dataclass
class Verifiers:
    """What judges the pictures of a run.

    Attributes:
        verifier, held_out: Of `VERIFIERS`; "workflow" leaves what is connected there.
        classifier: For class probability and logit.
        greedy: For FID.
        settings: What identifies them, for the hash of the run.
    """

    verifier: str
    held_out: str = WORKFLOW
    classifier: Classifier | None = None
    greedy: GreedyFid | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def of(self, which: str, job: Job) -> Any:
        """Return the verifier of a kind for a job; None for the workflow's own."""
        if which == WORKFLOW:
            return None
        if which == FID:
            return self.greedy
        label = class_index(self.classifier, class_of(job.prompt))
        return ClassScore(self.classifier, label, PROBABILITY if which == CLASS_PROBABILITY else LOGIT)

    def prepare(self, job: Job, workflow: Workflow) -> Workflow:
        """Return a job's workflow with the verifiers connected."""
        given = {"verifier": self.of(self.verifier, job), "held_out": self.of(self.held_out, job)}
        return connect_verifiers(workflow, job.name, **given)

    def accept(self, folder: Path, row: dict[str, Any]) -> None:
        """Take a finished picture into the set of the greedy FID, as it is on the disk."""
        if self.greedy is not None:
            from .class_features import read_picture

            self.greedy.accept(read_picture(folder / row["files"][0]))


def class_of(prompt: Prompt) -> str:
    """Return a prompt's class: its key `class`, else the prompt itself."""
    return str(prompt.metadata.get(CLASS_COLUMN, prompt.text))


def class_names(prompts: Sequence[Prompt]) -> list[str]:
    """Return the classes of a file, each once, in order.

    Raises:
        PromptFileError: If there are fewer than two: any picture is surely of an only class.
    """
    names = list(dict.fromkeys(class_of(prompt) for prompt in prompts))
    if len(names) < 2:
        raise PromptFileError(f"the class file holds one class only ({names}); a classifier needs two or more")
    return names


def verifiers_of(args: Any, prompts: Sequence[Prompt]) -> Verifiers:
    """Load the verifiers that the command line asks for.

    Args:
        args: With `verifier`, `held_out`, `classifier`, `clip`, `template`, `statistics`, `features`, `weights`, `device`.
        prompts: Of the whole class file: their classes are those of the zero-shot classifier.

    Raises:
        ValueError: If an option that a verifier needs is missing, or one is given that no verifier uses.
    """
    asked = {args.verifier, args.held_out}
    found = Verifiers(args.verifier, args.held_out)
    by_class = asked & {CLASS_PROBABILITY, CLASS_LOGIT}
    if bool(by_class) != (args.classifier is not None or args.clip is not None) or (args.classifier and args.clip):
        raise ValueError("class-probability and class-logit need one of --classifier and --clip; no other verifier does")
    if (FID in asked) != (args.statistics is not None):
        raise ValueError("the verifier fid needs --statistics; no other does")
    if args.classifier is not None:
        found.classifier = ImageClassifier(args.classifier, args.device)
    elif args.clip is not None:
        found.classifier = ZeroShotClip(args.clip, class_names(prompts), args.template, args.device)
        found.settings["templates"] = list(args.template)
    if found.classifier is not None:
        for prompt in prompts:  # a class that is not there is found before the first search
            class_index(found.classifier, class_of(prompt))
    if FID in asked:
        from .class_features import Extractor

        extractor = Extractor(args.features, args.weights, args.device)
        found.greedy = GreedyFid(load_statistics(args.statistics), extractor.features)
        found.settings["statistics"] = hashlib.sha256(Path(args.statistics).read_bytes()).hexdigest()
    named = ("verifier", "held_out", "classifier", "clip", "features")
    found.settings |= {name: str(getattr(args, name)) for name in named}
    return found


def class_run(workflow: Workflow, backend: Any, results: Results, verifiers: Verifiers, picture_node: str | None) -> Run:
    """Return a run whose search nodes get the verifiers and whose pictures are accepted, those of earlier runs too.

    Raises:
        WorkflowError: If the workflow has no search node that could get them.
    """
    if not any(node["class_type"] in SEARCH_NODES for node in workflow.values()):
        raise WorkflowError(f"the workflow has no search node ({', '.join(SEARCH_NODES)}) for the verifiers")
    return Run(
        workflow, backend, results, picture_node, prepare=verifiers.prepare,
        finished=lambda job, row: verifiers.accept(results.folder, row),
    )  # fmt: skip


def accuracy(results: Results, jobs: Sequence[Job], classifier: Classifier) -> tuple[float, float, torch.Tensor]:
    """Return how often a classifier finds the class, its mean probability of it, and its logits (N, C)."""
    from .class_features import read_picture

    logits, labels = [], []
    for job in jobs:
        picture = read_picture(results.folder / results.row(job.prompt.id, job.repeat)["files"][0])
        logits.append(classifier.logits(picture.permute(0, 2, 3, 1) / 255.0))
        labels.append(class_index(classifier, class_of(job.prompt)))
    found, wanted = torch.cat(logits), torch.tensor(labels)
    right = (found.argmax(1) == wanted).float().mean().item()
    return right, found.softmax(1)[torch.arange(len(wanted)), wanted].mean().item(), found
