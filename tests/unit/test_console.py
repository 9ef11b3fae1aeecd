"""What a terminal is told of a run's tests and of its end."""

from __future__ import annotations

import pytest

from training_backend.commands.console import ConsoleReport
from training_backend.protocol import (
    EvaluationLogged,
    Event,
    ExportProved,
    ProofCheck,
    RunCompleted,
    SampleGenerated,
)


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (
            EvaluationLogged(step=4, epoch=1.0, loss=2.0),
            "Held-out loss after step 4: 2.000 (perplexity 7.389)\n",
        ),
        (
            EvaluationLogged(step=4, epoch=1.0, loss=0.5, reward_margin=0.2),
            "Held-out loss after step 4: 0.500\n",
        ),
        (SampleGenerated(step=0, prompt="Hi?", answer="[b]o", base=True), "The base model - Hi?"),
        (SampleGenerated(step=0, prompt="Hi?", answer="[b]o"), "Before training - Hi?\n  [b]o"),
        (RunCompleted(folder="/a", step=9, best_step=9, best_loss=1.0), "Done.\n"),
        (
            ExportProved(
                verdict="different",
                code="x",
                message="What was trained is not in it.",
                checks=(
                    ProofCheck(name="kl", message="By 2.1.", value=2.1, limit=0.01, passed=False),
                    ProofCheck(name="prompts", message="[b]All[/b].", value=1.0, limit=1.0),
                    ProofCheck(name="agreement", message="None.", value=0.0),
                ),
            ),
            "Answers DIFFERENTLY. What was trained is not in it.\n"
            "  FAILED  kl         By 2.1.\n"
            "  ok      prompts    [b]All[/b].\n"
            "          agreement  None.\n",
        ),
        (
            RunCompleted(folder="/a", step=9, early_stopped_after=3, best_step=6, best_loss=1.25),
            "Stopped early at step 9: the held-out loss had not improved for 3 tests. What is kept "
            "is the model of step 6, with the lowest held-out loss (1.250).\n",
        ),
    ],
)
def test_a_terminal_is_told_in_words(
    event: Event, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ConsoleReport().show(event)
    assert words in capsys.readouterr().err
