"""Events: what goes in comes out, and nothing else is let in."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from training_backend import protocol
from training_backend.protocol import Event, parse_event

# One of each, every field filled in.
EVENTS: list[Event] = [
    protocol.RunStarted(
        run_id="r", folder="/runs/r", attempt=2, resumed_from_step=7, pid=4, app_version="1"
    ),
    protocol.PhaseChanged(
        phase="training",
        fraction=0.5,
        detail="the data",
        seconds_left=12.5,
        total_steps=20,
        trainable_parameters=10,
        total_parameters=100,
        rows=9,
        trained_token_share=0.25,
    ),
    protocol.MetricsLogged(
        step=3,
        total_steps=20,
        epoch=0.06,
        loss=2.31,
        learning_rate=2e-4,
        grad_norm=1.1,
        tokens_per_second=410.0,
        seconds_left=12.5,
    ),
    protocol.MemorySampled(
        device="cuda:0",
        device_name="A card",
        process_bytes=1,
        device_used_bytes=2,
        device_total_bytes=3 * 2**40,
        utilization=0.97,
        temperature_celsius=60.0,
        power_watts=200.0,
    ),
    protocol.EvaluationLogged(step=3, epoch=0.5, loss=1.0),
    protocol.SampleGenerated(
        step=0, prompt="Wie\nbitte?", answer='日本 👋 "quoted"\r\n\x00', base=True
    ),
    protocol.AnswersScored(
        step=20,
        rows=50,
        scores=(protocol.Score(name="f1", before=0.25, after=0.5, margin=0.1),),
        examples=(
            protocol.ScoredAnswer(question="Wie?", reference="So.", before="日本", after="So"),
        ),
    ),
    protocol.CheckpointSaved(step=5, path="/runs/r/checkpoints/checkpoint-5", bytes=123),
    protocol.MemoryMeasured(
        device="cuda:0",
        device_name="A card",
        device_total_bytes=3 * 2**40,
        fits=False,
        ran_out="the backward pass",
        measured_bytes=4,
        allocated_bytes=3,
        reserved_bytes=2,
        estimate_bytes=5,
        parts={"weights": 1},
        longest_tokens=128,
        full_length=True,
        seconds_per_step=0.5,
        run_seconds=600.0,
    ),
    protocol.WarningRaised(code="c", message="m", params={"rows": [1, 2], "name": "x"}),
    protocol.LogLine(message="one line"),
    protocol.Heartbeat(),
    protocol.ExportProved(
        verdict="slightly_different",
        code="as_the_format_is",
        message="Slightly different.",
        checks=(
            protocol.ProofCheck(name="mean_kl", message="Distance", value=0.03, limit=0.05),
            protocol.ProofCheck(name="same_tokens", message="The same tokens", passed=False),
        ),
    ),
    protocol.RunCompleted(
        folder="/runs/r/adapter",
        step=20,
        loss=0.5,
        early_stopped_after=3,
        best_step=14,
        best_loss=0.75,
    ),
    protocol.RunStopped(step=5, checkpoint="/runs/r/checkpoints/checkpoint-5"),
    protocol.RunFailed(code="c", message="m", remedy="r", field="model.id", params={"a": "b"}),
    protocol.RunInterrupted(cause="signal", detail="SIGKILL", log_tail="last words"),
]


def event_classes() -> set[type]:
    """Every class in the module that has a `type` of its own."""
    return {
        value
        for value in vars(protocol).values()
        if isinstance(value, type) and issubclass(value, BaseModel) and "type" in value.model_fields
    }


def test_every_event_class_is_in_the_union_and_in_this_test() -> None:
    union = set(get_args(get_args(Event)[0]))
    assert union == event_classes() == {type(event) for event in EVENTS}


def test_the_terminal_events_are_those_that_close_an_attempt() -> None:
    names = {"RunCompleted", "RunStopped", "RunFailed", "RunInterrupted"}
    assert {kind.__name__ for kind in protocol.TERMINAL_TYPES} == names
    assert set(get_args(protocol.Terminal)) == set(protocol.TERMINAL_TYPES)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_every_event_survives_the_way_through_json(event: Any) -> None:
    stamped = event.model_copy(update={"seq": 5, "time": 1.5, "elapsed": 0.25})
    line = stamped.model_dump_json()
    assert "\n" not in line
    assert json.loads(line)["type"] == type(event).__name__
    assert parse_event(line) == parse_event(line.encode()) == stamped


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.type)
def test_no_event_takes_a_field_that_it_does_not_have(event: Any) -> None:
    document = {**json.loads(event.model_dump_json()), "more": 1}
    with pytest.raises(ValidationError):
        parse_event(json.dumps(document))


@pytest.mark.parametrize(
    "line",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"type": "Heartbeat"',
        '{"type": "Unheard"}',
        '{"type": null}',
        '{"type": "LogLine"}',
        '{"type": "LogLine", "message": 5}',
        '{"type": "PhaseChanged", "phase": "resting"}',
        b"\xff\xfe",
    ],
)
def test_whatever_is_no_event_is_refused(line: str | bytes) -> None:
    with pytest.raises(ValidationError):
        parse_event(line)


def test_what_is_not_a_number_is_left_out_of_the_json() -> None:
    """Other programs read the journal too, and JSON has no NaN."""
    event = protocol.MetricsLogged(
        step=1, total_steps=2, epoch=0.5, loss=1.0, grad_norm=float("nan")
    )
    assert json.loads(event.model_dump_json())["grad_norm"] is None


def test_perplexity_is_the_exponential_of_the_held_out_loss_and_none_of_preferences() -> None:
    told = protocol.EvaluationLogged(step=3, epoch=0.5, loss=2.0)
    assert told.perplexity == pytest.approx(7.389, abs=1e-3)
    assert "perplexity" not in told.model_dump()  # it is no further fact
    assert protocol.EvaluationLogged(step=3, epoch=0.5, loss=1e6).perplexity is not None
    preferences = protocol.EvaluationLogged(step=3, epoch=0.5, loss=0.7, reward_margin=0.1)
    assert preferences.perplexity is None
