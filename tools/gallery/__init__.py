"""The example workflows as graphs, of which `make_workflows.py` makes files and pictures."""

from __future__ import annotations

from .basics import BASICS
from .models import MODELS
from .parts import Graph
from .tasks import TASKS

GRAPHS: list[Graph] = [*BASICS, *MODELS, *TASKS]
