"""Public benchmarks on a run's model, by the library lm-eval, which is an extra. Light.

lm-eval runs on the model that we load, so that nothing of a model is executed and no pickle
read. Its metrics that are programs on the Hub are kept from being fetched.
"""

from __future__ import annotations

import argparse
import difflib
import importlib.util
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training_backend import runs
from training_backend.commands.console import ConsoleReport
from training_backend.computer import devices
from training_backend.errors import UserError
from training_backend.lifecycle import card_lock, child_process
from training_backend.protocol import Event
from training_backend.runs import Run
from training_backend.worker import Reporter

EXTRA = "lm-eval>=0.4.13,<0.5"
Answer = tuple[dict[str, Any], str]  # as JSON, and in words
# By task and metric: samples, value and its standard error.
Found = dict[tuple[str, str], tuple[int | None, float, float | None]]
Evaluate = Callable[[Any, Any], Found]  # model and tokenizer


def register(add: Callable[[str, Callable[[argparse.Namespace], Answer], str], Any]) -> None:
    """Add the command; `add` as in `live_commands`."""
    command = add("benchmark", benchmark, "public benchmarks on a run's model (needs lm-eval)")
    command.add_argument("run", metavar="RUN", help="a run's id or folder")
    command.add_argument(
        "--tasks", required=True, metavar="NAMES", help="such as arc_easy,hellaswag"
    )
    command.add_argument("--limit", type=int, metavar="N", help="the first N rows of each task")
    command.add_argument("--base", action="store_true", help="the base model as well")
    command.add_argument("--few-shot", type=int, metavar="N", help="solved examples in the prompt")
    command.add_argument("--chat", action="store_true", help="ask through the chat template")
    command.add_argument("--batch-size", type=int, default=8, metavar="N", help="8 by default")
    command.add_argument(
        "--include", type=Path, metavar="FOLDER",
        help="tasks of your own, as lm-eval's YAML files; code that they name is run",
    )  # fmt: skip


def benchmark(options: argparse.Namespace) -> Answer:
    """Raises `UserError`: lm-eval is missing, or a task is unknown or cannot be loaded."""
    if importlib.util.find_spec("lm_eval") is None:
        raise UserError(
            "extra_missing",
            "Benchmarks need the package lm-eval, which is not installed.",
            'Install it with: {python} -m pip install "{package}"',
            python=sys.executable,
            package=EXTRA,
        )
    run = runs.find(options.run)
    child_process.choose_card()
    child_process.set_environment()
    os.environ["HF_EVALUATE_OFFLINE"] = "1"
    warnings.simplefilter("ignore")  # of libraries, to their users
    for library in ("lm_eval", "bitsandbytes"):
        logging.getLogger(library).setLevel(logging.ERROR)
    evaluate = _evaluation(options)
    after, before = _both(run, options.base, evaluate)
    results = [
        {
            "task": task,
            "metric": metric,
            "samples": samples,
            "trained": {"value": value, "stderr": error},
            "base": None
            if before is None
            else dict(zip(("value", "stderr"), before[task, metric][1:], strict=True)),
        }
        for (task, metric), (samples, value, error) in after.items()
    ]
    document = {
        "run": run.id,
        "limit": options.limit,
        "few_shot": options.few_shot,
        "chat": options.chat,
        "results": results,
    }
    return document, _as_text(results, options.limit)


class _Terminal(Reporter):
    """Says on a terminal what a worker writes in its journal."""

    def __init__(self, run: Run, report: ConsoleReport) -> None:
        self.run = run
        self._report = report

    def emit(self, event: Event) -> None:
        self._report.show(event)

    def stop_requested(self) -> bool:
        return False  # Ctrl+C ends it: there is nothing to save


def _both(run: Run, with_base: bool, evaluate: Evaluate) -> tuple[Found, Found | None]:
    """What the trained model comes to, and what its base does; lm-eval shows its progress."""
    from training_backend.models import finished_model

    with ConsoleReport() as report:
        reporter = _Terminal(run, report)
        card_lock.hold(devices.this_device(), f"benchmark of {run.id}", reporter)
        model, tokenizer = finished_model.load(run, reporter)
    _say("The trained model:")
    after = evaluate(model, tokenizer)
    if not with_base:
        return after, None
    if hasattr(model, "disable_adapter"):
        _say("The base model:")
        with model.disable_adapter():
            return after, evaluate(model, tokenizer)
    del model  # both may not fit
    with ConsoleReport() as report:
        model, tokenizer = finished_model.load_base(run, _Terminal(run, report))
    _say("The base model:")
    return after, evaluate(model, tokenizer)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _evaluation(options: argparse.Namespace) -> Evaluate:
    """What evaluates a model on the tasks, which are there with their data."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    include = None if options.include is None else str(options.include.expanduser())
    manager = TaskManager(include_path=include)
    names = options.tasks.split(",")
    _require_tasks(manager, names)

    def evaluate(model: Any, tokenizer: Any) -> Found:
        told = lm_eval.simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=options.batch_size),
            tasks=names,
            task_manager=manager,
            limit=options.limit,
            num_fewshot=options.few_shot,
            apply_chat_template=options.chat,
            log_samples=False,
        )
        return _values(told)

    return evaluate


def _require_tasks(manager: Any, names: list[str]) -> None:
    known = set(manager.all_tasks)
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        close = difflib.get_close_matches(unknown, known, n=3)
        raise UserError(
            "task_unknown",
            "lm-eval knows no task {name}.",
            "Did you mean {close}?" if close else "`lm-eval ls tasks` lists them all.",
            name=unknown,
            close=" or ".join(close),
        )
    try:
        tasks = manager.load(names)["tasks"]
    except Exception as error:  # of any kind: no network, a file that is gone, a task's own code
        reason = str(error).strip() or type(error).__name__
        raise UserError(
            "task_unloadable",
            "The tasks {names} cannot be loaded: {reason}.",
            "Their data comes from the Hugging Face Hub the first time: connect, with “Work "
            "offline” turned off.",
            names=", ".join(names),
            reason=reason.splitlines()[0][:300].rstrip("."),
        ) from error
    unsafe = [name for name, task in tasks.items() if getattr(task, "UNSAFE_CODE", False)]
    if unsafe:
        raise UserError(
            "task_runs_code",
            "The task {name} would run programs that the model writes.",
            "Choose other tasks; run this one with lm-eval itself, in a sandbox.",
            name=unsafe[0],
        )


def _values(told: dict[str, Any]) -> Found:
    """The numbers in lm-eval's answer, whose keys are “metric,filter”."""
    found: Found = {}
    for task, numbers in told["results"].items():
        samples = told["n-samples"].get(task, {}).get("effective")
        for key, value in numbers.items():
            metric, _, way = key.partition(",")
            if not way or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = numbers.get(f"{metric}_stderr,{way}")
            name = metric if way == "none" else f"{metric} ({way})"
            known = float(error) if isinstance(error, int | float) else None
            found[task, name] = samples, float(value), known
    return found


def _as_text(results: list[dict[str, Any]], limit: int | None) -> str:
    def number(of: dict[str, Any] | None) -> str:
        if of is None:
            return ""
        error = "" if of["stderr"] is None else f" ± {of['stderr']:.4f}"
        return f"{of['value']:.4f}{error}"

    lines = [f"{'task':28} {'metric':24} {'trained':18} {'base':18}".rstrip()]
    for result in results:
        line = f"{result['task']:28} {result['metric']:24} {number(result['trained']):18} "
        lines.append((line + number(result["base"])).rstrip())
    lines.append("± is one standard error.")
    if limit is not None:
        lines.append(
            f"Of the first {limit} rows of each task: not to be compared with others' figures."
        )
    return "\n".join(lines)
