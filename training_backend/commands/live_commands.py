"""Commands for a training under way: each leaves a request that its worker looks for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from training_backend import runs
from training_backend.errors import UserError
from training_backend.runs import Run

Answer = tuple[dict[str, Any], str]  # as JSON, and in words


def stop(options: argparse.Namespace) -> Answer:
    run = _live(options)
    run.request("stop")
    return _asked(run, "stop", f"Asked {run.id} to save and stop.")


def checkpoint(options: argparse.Namespace) -> Answer:
    run = _training(options)
    run.request("checkpoint")
    return _asked(
        run, "checkpoint", f"Asked {run.id} to save a checkpoint after the step it is at."
    )


def sample(options: argparse.Namespace) -> Answer:
    """With `--prompt` that question alone; without, those of the job."""
    run = _training(options)
    if options.prompt is None and not run.training_job().evaluation.prompts:
        raise UserError(
            "no_questions",
            "The job of run {run} has no questions to try.",
            "Give one with --prompt.",
            run=run.id,
        )
    run.requests.ask_question(options.prompt)
    return _asked(
        run, "sample", f"Asked {run.id}; the answer comes after the step it is at. Its journal, "
        "and whoever follows it, tell the answer.",
    )  # fmt: skip


def pause(options: argparse.Namespace) -> Answer:
    run = _training(options)
    run.request("pause")
    return _asked(
        run, "pause", f"Asked {run.id} to save after the step it is at, and to wait. Its model "
        "stays in memory; `go-on` lets it train again.",
    )  # fmt: skip


def go_on(options: argparse.Namespace) -> Answer:
    run = _training(options)
    if not run.requested("pause"):
        raise UserError("not_paused", "Run {run} is not paused.", run=run.id)
    run.requests.done("pause")
    return _asked(run, "go-on", f"{run.id} goes on.")


def register(add: Callable[[str, Any, str], argparse.ArgumentParser]) -> None:
    """Add the commands to the command line; `add` takes a name, a function and a help text."""
    for name, function, help in (
        ("stop", stop, "ask a live run to save and stop"),
        ("checkpoint", checkpoint, "ask a live run to save a checkpoint now"),
        ("sample", sample, "have the model of a live run answer questions now"),
        ("pause", pause, "ask a live run to save and wait"),
        ("go-on", go_on, "let a paused run go on"),
    ):
        command = add(name, function, help)
        command.add_argument("run", metavar="RUN", help="a run's id or folder")
        if function is sample:
            command.add_argument(
                "--prompt", metavar="TEXT", help="ask this, in the place of the job's questions"
            )


def _live(options: argparse.Namespace) -> Run:
    """Raises `UserError` for a run that nobody is working on."""
    run = runs.find(options.run)
    if not run.is_alive():
        raise UserError("not_running", "Run {run} is not running.", run=run.id)
    return run


def _training(options: argparse.Namespace) -> Run:
    """As `_live`; an export has nothing of what is asked here."""
    run = _live(options)
    run.training_job()
    return run


def _asked(run: Run, what: str, words: str) -> Answer:
    return {"id": run.id, "requested": what}, words
