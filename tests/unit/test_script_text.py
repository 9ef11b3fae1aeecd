"""The text of a script: tidy Python of only what the job uses, whatever a person typed."""

from __future__ import annotations

import ast
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training_backend.job import TrainingJob, parse_job
from training_backend.script import notes
from training_backend.script.notes import settings_left_out
from training_backend.script.python import Source, call, literal

json_values = st.recursive(
    st.text() | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False).map(
        lambda number: 0.0 if number in (float("inf"), float("-inf")) else number
    ),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=12,
)  # fmt: skip


@given(json_values)
def test_a_literal_means_the_value_and_stays_inside_a_call(value: Any) -> None:
    assert ast.literal_eval(literal(value)) == value
    (statement,) = ast.parse(call("f", {"x": value, "y": Source("z")}, ["first"])).body
    assert isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)
    x, y = statement.value.keywords
    assert ast.literal_eval(x.value) == value and isinstance(y.value, ast.Name)


def _job(**sections: Any) -> TrainingJob:
    job = parse_job({"model": {"id": "demo"}, "dataset": {"path": "demo"}, **sections})
    assert isinstance(job, TrainingJob)
    return job


def test_settings_that_the_script_cannot_carry_over_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job = _job(lora={"r": 3}, training={"packing": True}, quantization={"load_in_4bit": False})
    assert settings_left_out(job) == []
    known = {**notes._CARRIED, "training": notes._CARRIED["training"] - {"packing", "seed"}}
    monkeypatch.setattr(notes, "_CARRIED", known)
    assert settings_left_out(job) == ["training.packing"]  # the seed is as usual
