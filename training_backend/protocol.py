"""What a worker says: one typed event a line, the same in the queue and in the journal.

The journal (`events.jsonl`) is the truth and the queue is the live feed. `seq` counts the
events of one journal without a gap, over all attempts, so that a reader can tell what it
missed. `time` is Unix seconds (for people); `elapsed` is seconds on a monotonic clock since
the attempt began (for durations).

Every attempt opens with `RunStarted` and closes with exactly one terminal event.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from training_backend.errors import UserError
from training_backend.summaries.losses import perplexity

Phase = Literal[
    "waiting",
    "loading",
    "quantising",
    "tokenising",
    "measuring",
    "sampling",
    "training",
    "paused",
    "no_room",
    "saving",
    "merging",
    "converting",
    "verifying",
    "scoring",
]
ScoreName = Literal["exact_match", "f1", "rouge_l"]
Cause = Literal["signal", "exit_code", "vanished"]
# The person; the computer about to sleep; the system ending its programs or the session.
StopReason = Literal["asked", "sleep", "system"]
Brake = Literal["heat", "power"]
# Does an export answer as the 16-bit base model with the adapter does?
Verdict = Literal["alike", "slightly_different", "different", "not_proven"]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    seq: int = -1
    time: float = 0.0
    elapsed: float = 0.0


class RunStarted(_Event):
    """An attempt began. `attempt` counts from 1; a resumed one says from which step.

    `extended`: the job asks for more steps than it did in the attempt before. `revision`: how
    often the job had been revised by then.
    """

    type: Literal["RunStarted"] = "RunStarted"
    run_id: str
    folder: str
    attempt: int = 1
    resumed_from_step: int | None = None
    extended: bool = False
    revision: int = 0
    pid: int
    app_version: str = ""


class PhaseChanged(_Event):
    """Work moved on: to another phase, or (`fraction`, 0 to 1) within one.

    `seconds_left` is of the whole job, where that can be told. The counts are known from the
    phase `training` on. `trained_token_share` is the share
    of the data's tokens that the loss is computed on.
    """

    type: Literal["PhaseChanged"] = "PhaseChanged"
    phase: Phase
    fraction: float | None = None
    detail: str = ""
    seconds_left: float | None = None
    total_steps: int | None = None
    trainable_parameters: int | None = None
    total_parameters: int | None = None
    rows: int | None = None
    trained_token_share: float | None = None


class MetricsLogged(_Event):
    """One optimizer step. `seconds_left` is the worker's own estimate to the last step.

    Of preference tuning: `reward_margin` is how much more the model has come to prefer the
    chosen answers to the rejected ones, `reward_accuracy` in what share of the pairs it does.
    """

    type: Literal["MetricsLogged"] = "MetricsLogged"
    step: int
    total_steps: int
    epoch: float
    loss: float
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = None
    reward_margin: float | None = None
    reward_accuracy: float | None = None
    seconds_left: float | None = None


class MemorySampled(_Event):
    """Memory once a second. Without a GPU `device` is "cpu" and the bytes are RAM.

    `process_bytes` is what this run holds; None where the driver does not say. `held_back_by` is
    what keeps the card from going at full speed, `clock_share` its clock against the highest.
    """

    type: Literal["MemorySampled"] = "MemorySampled"
    device: str
    device_name: str = ""
    process_bytes: int | None
    device_used_bytes: int
    device_total_bytes: int
    utilization: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    held_back_by: Brake | None = None
    clock_share: float | None = None


class EvaluationLogged(_Event):
    """Loss on the held-out rows after `step` steps; rewards as in `MetricsLogged`."""

    type: Literal["EvaluationLogged"] = "EvaluationLogged"
    step: int
    epoch: float
    loss: float
    reward_margin: float | None = None
    reward_accuracy: float | None = None

    @property
    def perplexity(self) -> float | None:
        """Of the held-out rows; None in preference tuning, whose loss is not one of tokens."""
        return None if self.reward_margin is not None else perplexity(self.loss)


class SampleGenerated(_Event):
    """The model's answer to one of the fixed prompts; at step 0 it is what the run starts from.

    `base` marks the answer of the base model as it is, which comes once. Where the run starts
    from an adapter, that one's answer at step 0 comes besides.
    """

    type: Literal["SampleGenerated"] = "SampleGenerated"
    step: int
    prompt: str
    answer: str
    base: bool = False


class Score(BaseModel):
    """One measure of answers against the data's own, as the mean over the rows, from 0 to 1.

    `before` is the base model's, None where the run changed the base itself. `margin` is half
    the width of the 95 % confidence interval of `after` - `before` (paired rows, normal
    approximation): a smaller difference may be chance.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ScoreName
    before: float | None
    after: float
    margin: float | None = None


class ScoredAnswer(BaseModel):
    """A held-out row: the question, the data's answer, the base model's and the trained one's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    question: str
    reference: str
    before: str | None
    after: str


class AnswersScored(_Event):
    """How the answers to `rows` held-out rows compare with the data's own, after `step` steps.

    `examples` are a few of them, shortened; all are in the run's `scores.jsonl`.
    """

    type: Literal["AnswersScored"] = "AnswersScored"
    step: int
    rows: int
    scores: tuple[Score, ...]
    examples: tuple[ScoredAnswer, ...] = ()


class CheckpointSaved(_Event):
    """A checkpoint is whole on disk and can be resumed from."""

    type: Literal["CheckpointSaved"] = "CheckpointSaved"
    step: int
    path: str
    bytes: int


class MemoryMeasured(_Event):
    """What one real step on the longest rows took, at its peak; a probe's result.

    `measured_bytes` is what the process held of the device, all included; `parts` is what of it
    is known, by the names of `vram.Part`. Where it did not fit, the bytes are those up to there
    and `ran_out` says where. `estimate_bytes` is what the estimate said of the same rows.
    """

    type: Literal["MemoryMeasured"] = "MemoryMeasured"
    device: str
    device_name: str = ""
    device_total_bytes: int
    fits: bool
    ran_out: str = ""
    measured_bytes: int
    allocated_bytes: int | None = None
    reserved_bytes: int | None = None
    estimate_bytes: int | None = None
    parts: dict[str, int] = Field(default_factory=dict)
    longest_tokens: int
    full_length: bool
    seconds_per_step: float | None = None
    run_seconds: float | None = None


class WarningRaised(_Event):
    """Something the person should know that does not end the run.

    `since` and `until` are the steps that it speaks of, where it speaks of some: the charts mark
    them. `until` is None where it goes on; a later warning with the same `since` tells its end.
    """

    type: Literal["WarningRaised"] = "WarningRaised"
    code: str
    message: str
    params: dict[str, Any] = Field(default_factory=dict)
    since: int | None = None
    until: int | None = None


class LogLine(_Event):
    """A line for the log view."""

    type: Literal["LogLine"] = "LogLine"
    message: str


class Heartbeat(_Event):
    """The worker is alive; written when nothing else was for a while.

    `working`: said by the work itself in the midst of a long step or test.
    """

    type: Literal["Heartbeat"] = "Heartbeat"
    working: bool = False


class ProofCheck(BaseModel):
    """One thing that was compared. `limit` is None where a value is told for information only."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")

    name: str
    message: str
    params: dict[str, Any] = Field(default_factory=dict)
    value: float | None = None
    limit: float | None = None
    passed: bool = True


class ExportProved(_Event):
    """What asking an export the questions of the proof came to; said before the run's end.

    `code` and `message` say the verdict and its likely cause in plain words. `kept` is what an
    earlier check found of the same files, where this one came to nothing.
    """

    type: Literal["ExportProved"] = "ExportProved"
    verdict: Verdict
    code: str
    message: str
    params: dict[str, Any] = Field(default_factory=dict)
    checks: tuple[ProofCheck, ...] = ()
    kept: Verdict | None = None


class RunCompleted(_Event):
    """The job was done to its end. `folder` holds the adapter or the export.

    `early_stopped_after`: the run ended before its last step, since so many tests in a row brought
    no lower held-out loss. `best_step` and `best_loss`: what was kept is the model of this step,
    with the lowest held-out loss of all tests; None where the last one is kept whatever it is.
    """

    type: Literal["RunCompleted"] = "RunCompleted"
    folder: str
    step: int | None = None
    loss: float | None = None
    early_stopped_after: int | None = None
    best_step: int | None = None
    best_loss: float | None = None


class RunStopped(_Event):
    """Ended on request, after saving. `checkpoint` is what a resume goes on from."""

    type: Literal["RunStopped"] = "RunStopped"
    step: int | None = None
    checkpoint: str | None = None
    reason: StopReason = "asked"


class RunFailed(_Event):
    """Ended by an error that has a name. The traceback, if any, is in `worker.log`.

    `goes_on`: whoever follows the run begins it again by itself, as its job allows (`halving`).
    """

    type: Literal["RunFailed"] = "RunFailed"
    code: str
    message: str
    remedy: str = ""
    field: str | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    goes_on: bool = False

    @property
    def words(self) -> str:
        return f"{self.message} {self.remedy}".rstrip()

    @classmethod
    def of(cls, error: UserError) -> RunFailed:
        """What the person was told, as the end of the run that it happened to."""
        return cls(
            code=error.code,
            message=error.message,
            remedy=error.remedy,
            field=error.field,
            params={key: str(value) for key, value in error.params.items()},
        )


class RunInterrupted(_Event):
    """The worker died without a word; whoever noticed wrote this for it.

    `code` names the end (see `ends.py`), `detail` says it in a sentence, `remedy` what to do about
    it; `exit_code` is negative for a signal, and None where nobody could ask for it.
    """

    type: Literal["RunInterrupted"] = "RunInterrupted"
    cause: Cause
    code: str = ""
    detail: str = ""
    remedy: str = ""
    params: dict[str, Any] = Field(default_factory=dict)
    exit_code: int | None = None
    log_tail: str = ""

    @property
    def words(self) -> str:
        return f"{self.detail} {self.remedy}".rstrip()


Terminal = RunCompleted | RunStopped | RunFailed | RunInterrupted
Event = Annotated[
    RunStarted
    | PhaseChanged
    | ExportProved
    | MetricsLogged
    | MemorySampled
    | EvaluationLogged
    | SampleGenerated
    | AnswersScored
    | CheckpointSaved
    | MemoryMeasured
    | WarningRaised
    | LogLine
    | Heartbeat
    | RunCompleted
    | RunStopped
    | RunFailed
    | RunInterrupted,
    Field(discriminator="type"),
]
TERMINAL_TYPES = (RunCompleted, RunStopped, RunFailed, RunInterrupted)

_ADAPTER: TypeAdapter[Event] = TypeAdapter(Event)


def parse_event(line: str | bytes) -> Event:
    """Read one journal line. Raises `pydantic.ValidationError` for anything else."""
    return _ADAPTER.validate_json(line)
