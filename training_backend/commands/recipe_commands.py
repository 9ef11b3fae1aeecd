"""The command `diff`: in which settings jobs differ, or a job from the defaults."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training_backend import runs
from training_backend.job import TrainingJob
from training_backend.starting_points import recipes
from training_backend.starting_points.recipes import Recipe


def diff(options: argparse.Namespace) -> int:
    """Print every field that differs, with both values."""
    first = _recipe(options.job)
    if options.other is not None:
        found = recipes.changes(_recipe(options.other), first.values.get)
    else:
        defaults = _defaults()
        found = [
            change
            for change in recipes.changes(first, defaults.values.get)
            if change.part == "settings" and change.field in defaults.values
        ]
    if options.json:
        print(json.dumps([dataclasses.asdict(change) for change in found], indent=2))
        return 0
    width = max((len(change.field) for change in found), default=0)
    for change in found:
        print(f"{change.field:{width}}  {_shown(change.now)} -> {_shown(change.then)}")
    if not found:
        print("They are the same." if options.other is not None else "Nothing but defaults.")
    return 0


def register(add: Callable[[str, Any, str], argparse.ArgumentParser]) -> None:
    """Add the command to the command line; `add` takes a name, a function and a help text."""
    command = add("diff", diff, "in which settings jobs differ, or one from the defaults")
    command.add_argument("job", metavar="JOB.json|RUN", help="a job file, or a run's id or folder")
    command.add_argument("other", nargs="?", metavar="OTHER.json|RUN")


def _recipe(reference: str) -> Recipe:
    if os.path.isfile(reference) or reference.endswith(".json"):
        return recipes.read(Path(reference))
    run = runs.find(reference)
    return recipes.of_job(run.id, run.training_job())


def _defaults() -> Recipe:
    """Every setting as in a job that leaves it out; what a run is called has no default."""
    job = TrainingJob.model_validate({"model": {"id": "demo"}, "dataset": {"path": "demo"}})
    recipe = recipes.of_job("", job)
    values = {field: value for field, value in recipe.values.items() if field != "name"}
    return dataclasses.replace(recipe, values=values)


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
