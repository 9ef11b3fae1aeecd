"""Events for a terminal: a progress bar on stderr, plain words, or one JSON line each."""

from __future__ import annotations

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from training_backend.protocol import (
    AnswersScored,
    CheckpointSaved,
    EvaluationLogged,
    Event,
    ExportProved,
    MetricsLogged,
    PhaseChanged,
    ProofCheck,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    RunStarted,
    RunStopped,
    SampleGenerated,
    Verdict,
    WarningRaised,
)

PHASES = {
    "no_room": "Waiting for room:",
    "waiting": "Waiting for the card:",
    "loading": "Loading",
    "quantising": "Quantising",
    "tokenising": "Reading the data",
    "measuring": "Trying one step",
    "sampling": "Answering the questions",
    "training": "Training",
    "paused": "Paused; the model stays in memory",
    "saving": "Saving",
    "merging": "Merging",
    "converting": "Writing the GGUF file",
    "verifying": "Checking",
    "scoring": "Comparing answers",
}

VERDICTS: dict[Verdict, str] = {
    "alike": "Answers alike",
    "slightly_different": "Answers slightly differently",
    "different": "Answers DIFFERENTLY",
    "not_proven": "Not proven",
}
SCORES = {"exact_match": "Exact match", "f1": "F1", "rouge_l": "ROUGE-L"}


class JsonReport:
    """One event a line on stdout, exactly as in the journal."""

    def __enter__(self) -> JsonReport:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, event: Event) -> None:
        sys.stdout.write(event.model_dump_json() + "\n")
        sys.stdout.flush()
        if isinstance(event, RunFailed | RunInterrupted):
            self.say(_why(event))

    def say(self, text: str) -> None:
        print(text, file=sys.stderr)


class ConsoleReport:
    """A bar with step, loss and time left; notable events as lines above it.

    Text from models and data is printed without rich's markup.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True, markup=False, highlight=False)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._progress.add_task("Starting", total=None)

    def __enter__(self) -> ConsoleReport:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def show(self, event: Event) -> None:
        match event:
            case RunStarted(resumed_from_step=int(step)):
                self.say(f"Going on from step {step}.")
            case PhaseChanged(phase="training", total_steps=int(total)):
                count, whole = event.trainable_parameters or 0, event.total_parameters or 1
                self.say(
                    f"Training {count:,} of {whole:,} parameters ({count / whole:.2%}) on "
                    f"{event.rows:,} rows."
                )
                self.bar("Training", 0, total)
            case PhaseChanged(phase=phase, fraction=share):
                words = " ".join(part for part in (PHASES[phase], event.detail) if part)
                self.bar(words, share or 0, None if share is None else 1)
            case MetricsLogged():
                self.bar(
                    f"Step {event.step} of {event.total_steps}, loss {event.loss:.3f}",
                    event.step,
                    event.total_steps,
                )
            case EvaluationLogged():
                perplexity = event.perplexity
                beside = "" if perplexity is None else f" (perplexity {perplexity:.4g})"
                self.say(f"Held-out loss after step {event.step}: {event.loss:.3f}{beside}")
            case CheckpointSaved():
                self.say(f"Checkpoint saved at step {event.step}.")
            case SampleGenerated(step=step):
                before = "The base model" if event.base else "Before training"
                when = before if step == 0 else f"After step {step}"
                self.say(f"{when} - {event.prompt}\n  {event.answer}\n")
            case AnswersScored():
                self.say(_scores(event))
            case ExportProved():
                self.say(_proof(event))
            case WarningRaised():
                self.say(f"Note: {event.message}")
            case RunCompleted():
                self.say(_how(event))
            case RunStopped():
                said = "Stopped and saved." if event.checkpoint else "Stopped."
                self.say(said + (" The computer went to sleep." if event.reason == "sleep" else ""))
            case RunFailed() | RunInterrupted():
                self.say(_why(event))

    def bar(self, words: str, done: float, total: float | None) -> None:
        self._progress.update(self._task, description=words, completed=done, total=total)


def _scores(event: AnswersScored) -> str:
    lines = [f"Answers to {event.rows} held-out rows against the data's own:"]
    for score in event.scores:
        name = SCORES[score.name]
        if score.before is None:
            lines.append(f"  {name:12} {score.after:.1%}")
            continue
        margin = f", give or take {score.margin * 100:.1f} points" if score.margin else ""
        lines.append(f"  {name:12} {score.before:.1%} before, {score.after:.1%} after{margin}")
    return "\n".join(lines)


def _proof(event: ExportProved) -> str:
    """The verdict and why, then one line a check: passed, failed, or told for information."""

    def mark(check: ProofCheck) -> str:
        if not check.passed:
            return "FAILED"
        return "ok" if check.limit is not None else ""

    lines = [f"{VERDICTS[event.verdict]}. {event.message}"]
    width = max((len(check.name) for check in event.checks), default=0)
    lines += [f"  {mark(check):6}  {check.name:{width}}  {check.message}" for check in event.checks]
    return "\n".join(lines)


def _how(event: RunCompleted) -> str:
    said = "Done."
    if event.early_stopped_after is not None:
        said = (
            f"Stopped early at step {event.step}: the held-out loss had not improved for "
            f"{event.early_stopped_after} tests."
        )
    if event.best_step is not None and event.best_step != event.step:
        said += f" What is kept is the model of step {event.best_step}"
        said += f", with the lowest held-out loss ({event.best_loss:.3f})."
    return said


def _why(event: RunFailed | RunInterrupted) -> str:
    return f"{'Failed' if isinstance(event, RunFailed) else 'Interrupted'}: {event.words}"


Report = JsonReport | ConsoleReport
