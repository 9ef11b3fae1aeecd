"""Benchmarks: the extra that they need, and how its answers are read."""

from __future__ import annotations

import argparse
import importlib.util
import tomllib
from pathlib import Path

import pytest

from training_backend.commands import benchmark
from training_backend.errors import UserError

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
TOLD = {
    "results": {
        "arc_easy": {
            "alias": "arc_easy",
            "acc,none": 0.5,
            "acc_stderr,none": 0.05,
            "acc_norm,none": 0.25,
            "acc_norm_stderr,none": "N/A",
        },
        "gsm8k": {"alias": " - gsm8k", "exact_match,strict-match": 0.125},
    },
    "n-samples": {"arc_easy": {"original": 2376, "effective": 100}},
}


def test_without_lm_eval_the_line_that_installs_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError) as caught:
        benchmark.benchmark(argparse.Namespace(run="any", tasks="arc_easy"))
    assert caught.value.code == "extra_missing"
    assert f'-m pip install "{benchmark.EXTRA}"' in caught.value.remedy


def test_the_line_names_what_the_project_names() -> None:
    extras = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert extras["benchmarks"] == [benchmark.EXTRA]


def test_every_number_of_lm_eval_is_read_with_its_error() -> None:
    assert benchmark._values(TOLD) == {
        ("arc_easy", "acc"): (100, 0.5, 0.05),
        ("arc_easy", "acc_norm"): (100, 0.25, None),
        ("gsm8k", "exact_match (strict-match)"): (None, 0.125, None),
    }


def test_a_limit_is_said_beside_the_numbers() -> None:
    result = {
        "task": "arc_easy",
        "metric": "acc",
        "trained": {"value": 0.5, "stderr": 0.05},
        "base": {"value": 0.25, "stderr": None},
    }
    whole, part = (benchmark._as_text([result], limit) for limit in (None, 100))
    assert whole.splitlines()[1].split() == ["arc_easy", "acc", "0.5000", "±", "0.0500", "0.2500"]
    assert "first 100 rows" in part and "rows" not in whole
