"""What the API judge asks about pictures, and how strictly it reads the answers.

The five aspects are those of the seed paper's LLM grader; the wording is ours. A check-list of yes-or-no questions is
steadier than one grade for all, and two pictures side by side tell apart what grades tie.

References:
    Inference-Time Scaling for Diffusion Models beyond Scaling Denoising Steps (Ma et al., 2025), arXiv 2501.09732
    Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena (Zheng et al., 2023), arXiv 2306.05685: position bias
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .answers import answers_in
from .replies import WrongAnswer

ASPECTS = {
    "accuracy_to_prompt": "does it show what the prompt says: every subject, number, attribute, relation and text",
    "originality": "is the composition or idea its own, rather than the first that comes to mind",
    "visual_quality": "technique and realism in the style asked for: sharpness, light, color, no artifacts",
    "internal_consistency": "do anatomy, perspective, shadows and objects agree with one another",
    "emotional_resonance": "does it convey the prompt's mood or theme",
}
HIGHEST = 10
MAX_ELEMENTS = 12
MAX_ELEMENT = 200  # characters
FIRST, SECOND, TIE = "first", "second", "tie"
OBSERVATIONS = "observations"  # what a model is to look at before it judges; of no use afterwards
GRADE = re.compile(r"(\d{1,2}(?:\.\d{1,9})?)(?: ?(?:/|out of) ?10)?", re.ASCII)


@dataclass(frozen=True)
class Question:
    """A question to a model.

    Attributes:
        text: The question, the form of the answer included: not every server enforces the schema.
        fields: JSON schema of each field of the answer.
        read: Turns the answer's fields into what is wanted; raises WrongAnswer.
    """

    text: str
    fields: dict[str, Any]
    read: Callable[[dict[str, Any]], Any]

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of the answer."""
        return {"type": "object", "properties": self.fields, "required": list(self.fields), "additionalProperties": False}

    def answer(self, content: str) -> Any:
        """Read an answer: the last JSON object outside of the model's thinking that has all fields asked for.

        Raises:
            WrongAnswer: There is no such object, it lacks a field, or it has a value that is not allowed.
        """
        found = answers_in(content)
        if not found:
            raise WrongAnswer(f"it is not the JSON that was asked for: {content.strip()}")
        needed = self.fields.keys() - {OBSERVATIONS}
        return self.read(next((fields for fields in reversed(found) if needed <= fields.keys()), found[-1]))


def five_aspects(prompt: str) -> Question:
    """Ask for five grades of a picture; their mean, 0 to 10, is the answer."""
    grade = {"type": "integer", "enum": list(range(HIGHEST + 1))}
    listed = "\n".join(f"- {name}: {means}" for name, means in ASPECTS.items())
    text = (
        f"The picture was made from this prompt:\n\n{prompt}\n\nGrade it as a strict critic, from 0 (fails) over 5 (average) to"
        f" {HIGHEST} (flawless), in each of these aspects:\n{listed}\n\nFirst put into 'observations', in one or two sentences,"
        f" what you see that matters. Answer with one JSON object with the keys observations, {', '.join(ASPECTS)}."
    )
    fields = {OBSERVATIONS: {"type": "string"}, **dict.fromkeys(ASPECTS, grade)}
    return Question(text, fields, lambda answer: math.fsum(_grade(answer, name) for name in ASPECTS) / len(ASPECTS))


def elements(prompt: str) -> Question:
    """Ask for the check-list of a prompt: 1 to 12 texts."""
    text = (
        f"This is the prompt of a picture:\n\n{prompt}\n\nList what can be checked by looking at the picture: each subject, its"
        f" number, its attributes, each relation, setting, style and text, one thing each, at most {MAX_ELEMENTS}, in a few"
        ' words each. Answer with one JSON object: {"elements": ["...", "..."]}.'
    )
    return Question(text, {"elements": {"type": "array", "items": {"type": "string"}}}, _elements)


def check_list(things: Sequence[str]) -> Question:
    """Ask which elements a picture shows; their share, 0 to 1, is the answer."""
    names = [f"element_{number}" for number in range(1, len(things) + 1)]
    listed = "\n".join(f"- {name}: {thing}" for name, thing in zip(names, things, strict=True))
    text = (
        f"Look at the picture and say for each of these elements whether the picture clearly shows it:\n{listed}\n\nIn doubt"
        f' say no. Answer with one JSON object with the keys {", ".join(names)}, each "yes" or "no".'
    )
    fields = dict.fromkeys(names, {"type": "string", "enum": ["yes", "no"]})
    return Question(text, fields, lambda answer: sum(_one_of(answer, n, ("yes", "no")) == "yes" for n in names) / len(names))


def better(prompt: str) -> Question:
    """Ask which of two pictures is better; 1 for the first, 0 for the second, 0.5 for neither, is the answer."""
    listed = "\n".join(f"- {name}: {means}" for name, means in ASPECTS.items())
    text = (
        f"Both pictures were made from this prompt:\n\n{prompt}\n\nWhich one is better, all in all? Weigh:\n{listed}\n\nTheir"
        " order says nothing. First put into 'observations', in one or two sentences, how they differ. Answer with one JSON"
        f' object with the keys observations and better; better is "{FIRST}", "{SECOND}" or "{TIE}".'
    )
    fields = {OBSERVATIONS: {"type": "string"}, "better": {"type": "string", "enum": [FIRST, SECOND, TIE]}}
    worth = {FIRST: 1.0, SECOND: 0.0, TIE: 0.5}
    return Question(text, fields, lambda answer: worth[_one_of(answer, "better", tuple(worth))])


def _grade(answer: dict[str, Any], name: str) -> float:
    value = answer.get(name)
    if isinstance(value, str) and (found := GRADE.fullmatch(value.strip())):
        value = float(found[1])
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= HIGHEST:
        raise WrongAnswer(f"'{name}' must be a number from 0 to {HIGHEST}: {json.dumps(answer)}")
    return float(value)


def _one_of(answer: dict[str, Any], name: str, allowed: Sequence[str]) -> str:
    value = answer.get(name)
    if isinstance(value, bool):
        value = "yes" if value else "no"
    said = value.strip().rstrip(".").lower() if isinstance(value, str) else ""
    if said not in allowed:
        raise WrongAnswer(f"'{name}' must be one of {', '.join(allowed)}: {json.dumps(answer)}")
    return said


def _elements(answer: dict[str, Any]) -> tuple[str, ...]:
    found = answer.get("elements")
    if not isinstance(found, list) or not 1 <= len(found) <= MAX_ELEMENTS:
        raise WrongAnswer(f"'elements' must be a list of 1 to {MAX_ELEMENTS} texts: {json.dumps(answer)}")
    if not all(isinstance(thing, str) and 0 < len(thing.strip()) <= MAX_ELEMENT for thing in found):
        raise WrongAnswer(f"'elements' must be texts of at most {MAX_ELEMENT} characters: {json.dumps(answer)}")
    return tuple(" ".join(thing.split()) for thing in found)
