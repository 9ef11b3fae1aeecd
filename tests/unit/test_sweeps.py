"""Sweeps: which runs come of the values that one wants to try, and which of them did best."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training_backend import paths
from training_backend.errors import JobError, UserError
from training_backend.job import TrainingJob, parse_job
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import (
    EvaluationLogged,
    Event,
    MemorySampled,
    MetricsLogged,
    RunCompleted,
    RunFailed,
    RunStarted,
)
from training_backend.queueing import run_queue, sweep_results, sweeps
from training_backend.queueing.sweep_results import SweepTable
from training_backend.queueing.sweeps import Axis, Sweep
from training_backend.runs import Run

pytestmark = pytest.mark.usefixtures("lorasmith_home")


def job(**sections: dict[str, Any]) -> TrainingJob:
    document: dict[str, Any] = {"name": "first try", "model": {"id": "demo"}}
    document |= {"dataset": {"path": "demo"}, "evaluation": {"held_out_fraction": 0.05}}
    made = parse_job({**document, **sections})
    assert isinstance(made, TrainingJob)
    return made


def ranks(*values: Any) -> list[Axis]:
    return [Axis(field="lora.r", values=values)]


def problems(job: TrainingJob, axes: list[Axis]) -> list[tuple[str, str]]:
    with pytest.raises(JobError) as caught:
        sweeps.expand(job, axes)
    return [(problem.field, problem.message) for problem in caught.value.problems]


# --------------------------------------------------------------------------------- its runs


def test_each_value_is_a_job_of_its_own_that_differs_in_nothing_else() -> None:
    asked = job()
    made = sweeps.expand(asked, [Axis(field="training.learning_rate", values=(1e-4, 2e-4))])
    assert [one.name for one in made] == [
        "first try, learning rate 0.0001", "first try, learning rate 0.0002",
    ]  # fmt: skip
    changes = {"name": asked.name, "training": asked.training}
    assert [one.model_copy(update=changes) for one in made] == [asked, asked]
    assert [one.training.learning_rate for one in made] == [1e-4, 2e-4]


def test_alpha_follows_the_rank_unless_it_is_varied_itself_or_the_scaling_does() -> None:
    made = sweeps.expand(job(lora={"r": 16, "lora_alpha": 32}), ranks(4, 8, 64))
    assert [(one.lora.r, one.lora.lora_alpha) for one in made] == [(4, 8), (8, 16), (64, 128)]
    both = [*ranks(4, 8), Axis(field="lora.lora_alpha", values=(5, 7))]
    pairs = [(one.lora.r, one.lora.lora_alpha) for one in sweeps.expand(job(), both)]
    assert pairs == [(4, 5), (4, 7), (8, 5), (8, 7)]
    stable = job(lora={"r": 16, "lora_alpha": 32, "use_rslora": True})
    assert [one.lora.lora_alpha for one in sweeps.expand(stable, ranks(4, 8))] == [32, 32]
    assert any("alpha / rank stays 2" in note for note in sweeps.notes(job(), ranks(4, 8)))
    assert not any("Alpha follows" in note for note in sweeps.notes(stable, ranks(4, 8)))


def test_names_say_what_was_varied() -> None:
    axes = [
        Axis(field="quantization.load_in_4bit", values=(True, False)),
        Axis(field="dataset.max_rows", values=(500, None)),
    ]
    assert [one.name for one in sweeps.expand(job(), axes)] == [
        "first try, 4-bit, 500 rows", "first try, 4-bit, all rows",
        "first try, 16-bit, 500 rows", "first try, 16-bit, all rows",
    ]  # fmt: skip
    long = job().model_copy(update={"name": "x" * 120})
    assert sweeps.expand(long, ranks(4, 8))[0].name.endswith("x, rank 4")


@pytest.mark.parametrize(
    ("axes", "field", "words"),
    [
        (ranks(8, 0), "lora.r", "greater than or equal to 1"),
        (ranks(8, "many"), "lora.r", "integer"),
        (ranks(8, 8), "lora.r", "8 is given twice"),
        (ranks(), "lora.r", "no values"),
        ([*ranks(8), *ranks(16)], "lora.r", "twice"),
        ([Axis(field="model.id", values=("a", "b"))], "model.id", "cannot be varied"),
        ([Axis(field="training.optim", values=("adamw_torch", "best"))], "training.optim", "best"),
        ([Axis(field="dataset.max_rows", values=(0, 5))], "dataset.max_rows", "0: "),
    ],
)
def test_a_value_that_cannot_be_is_said_at_its_setting(
    axes: list[Axis], field: str, words: str
) -> None:
    found = problems(job(), axes)
    assert {where for where, _ in found} == {field}
    assert any(words in message for _, message in found)


def test_values_that_do_not_go_with_the_rest_of_the_job_are_said_too() -> None:
    odd = job(lora={"init_lora_weights": "orthogonal"}, quantization={"load_in_4bit": False})
    ((field, message),) = problems(odd, ranks(8, 7))
    assert field == "lora.r" and message.startswith("rank 7: ") and "even rank" in message
    strong = job(lora={"r": 16, "lora_alpha": 4096})
    ((field, message),) = problems(strong, ranks(8, 32))
    assert field == "lora.r" and message.startswith("rank 32: Alpha: ") and "4096" in message
    full = job(training={"method": "full"}, quantization={"load_in_4bit": False})
    assert "every weight" in problems(full, ranks(4, 8))[0][1]
    by_steps = job(training={"max_steps": 5})
    epochs = [Axis(field="training.num_train_epochs", values=(1.0, 2.0))]
    assert "max_steps" in problems(by_steps, epochs)[0][1]


def test_a_sweep_is_bounded_and_says_how_many_runs_it_would_be() -> None:
    rates = Axis(field="training.learning_rate", values=(1e-4, 2e-4, 5e-4, 1e-3, 2e-3))
    with pytest.raises(UserError, match=r"25 runs.*at most 24") as caught:
        sweeps.expand(job(), [*ranks(2, 4, 8, 16, 32), rates])
    assert caught.value.code == "too_many_runs"
    assert len(sweeps.expand(job(), [*ranks(2, 4, 8, 16), rates])) == 20
    with pytest.raises(UserError, match="two values"):
        sweeps.expand(job(), ranks(4))
    with pytest.raises(UserError, match="two values"):
        sweeps.expand(job(), [])


# ---------------------------------------------------------------------------- what is offered


@pytest.mark.parametrize("field", sweeps.FIELDS)
def test_every_setting_that_can_be_varied_has_a_title_and_values_that_work(field: str) -> None:
    assert sweeps.title(field)
    assert sweeps.find_field(field) == field
    values = sweeps.suggest_values(job(), field)
    assert 2 <= len(values) <= 4
    made = sweeps.expand(job(), [Axis(field=field, values=values)])
    assert len({one.name for one in made}) == len(values)
    assert [sweeps.value_of(one, field) for one in made] == list(values)


def test_values_are_suggested_around_the_jobs_own() -> None:
    assert sweeps.suggest_values(job(), "lora.r") == (8, 16, 32)
    assert sweeps.suggest_values(job(lora={"r": 1}), "lora.r") == (1, 2)
    assert sweeps.suggest_values(job(), "training.learning_rate") == (1e-4, 2e-4, 5e-4)
    assert sweeps.suggest_values(job(), "dataset.max_rows", 800) == (200, 400, None)


@given(st.floats(1e-9, 1.0))
def test_neighbours_lie_on_both_sides_and_not_too_near(value: float) -> None:
    below, same, above = sweeps._neighbours(value)
    assert same == value
    assert 1.2 < value / below < 5 and 1.2 < above / value < 5


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("r", "lora.r"),
        ("rank", "lora.r"),
        ("lr", "training.learning_rate"),
        (" Seed ", "training.seed"),
    ],
)
def test_a_setting_is_found_by_the_names_that_people_use(name: str, field: str) -> None:
    assert sweeps.find_field(name) == field


def test_another_setting_is_refused_with_what_can_be_varied() -> None:
    with pytest.raises(JobError, match=r"lora\.r"):
        sweeps.find_field("colour")


# ---------------------------------------------------------------------------------- in the queue


def test_a_sweep_waits_in_the_queue_and_is_remembered_with_its_runs() -> None:
    sweep = sweeps.start(job(), ranks(4, 8, 16))
    entries = run_queue.entries()
    assert [entry.sweep for entry in entries] == [sweep.id] * 3
    assert [entry.run for entry in entries] == sweep.runs()
    assert sweeps.list_sweeps() == [sweep] == [sweeps.find(sweep.id)]
    run_queue.remove(entries[1].run.id)
    assert len(sweep.runs()) == 2
    run_queue.put_back(entries[1].run.id, 1)
    assert [run.training_job().lora.r for run in sweep.runs()] == [4, 8, 16]


def test_a_sweep_that_cannot_be_leaves_nothing_behind() -> None:
    with pytest.raises(JobError):
        sweeps.start(job(), ranks(8, 0))
    assert run_queue.entries() == [] and sweeps.list_sweeps() == []


def test_a_sweep_for_which_there_is_no_room_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_queue, "add", full)
    with pytest.raises(OSError, match="No space left"):
        sweeps.start(job(), ranks(4, 8))
    assert sweeps.list_sweeps() == []


def test_a_damaged_sweep_is_passed_over() -> None:
    kept = sweeps.start(job(), ranks(4, 8))
    (paths.home() / "sweeps" / "broken.json").write_text("{", encoding="utf-8")
    (paths.home() / "sweeps" / "other.json").write_text("[1]", encoding="utf-8")
    assert sweeps.list_sweeps() == [kept]
    with pytest.raises(UserError, match="no sweep broken"):
        sweeps.find("broken")


def test_what_is_stored_is_read_back_as_it_was() -> None:
    axes = [
        Axis(field="dataset.max_rows", values=(250, None)),
        Axis(field="training.learning_rate", values=(1e-4, 2e-4)),
    ]
    assert sweeps.find(sweeps.start(job(), axes).id).axes == tuple(axes)


# ----------------------------------------------------------------------------------- its results


def finish(run: Run, loss: float | None, held_out: float | None = None, *more: Event) -> None:
    """What a worker writes."""
    writer = JournalWriter(run.folder)
    writer.append(RunStarted(run_id=run.id, folder=str(run.folder), pid=1))
    memory = MemorySampled(
        device="cpu", process_bytes=2_000, device_used_bytes=3_000, device_total_bytes=9_000
    )
    writer.append(memory)
    if loss is not None:
        for step, value in ((1, loss + 1), (2, loss - 1)):
            writer.append(
                MetricsLogged(
                    step=step, total_steps=2, epoch=1, loss=value, tokens_per_second=100.0 * step
                )
            )
    if held_out is not None:
        writer.append(EvaluationLogged(step=2, epoch=1, loss=held_out))
    for event in more or (RunCompleted(folder="x"),):
        writer.append(event)
    writer.close()


def done(axes: list[Axis], *results: tuple[Any, ...]) -> SweepTable:
    sweep: Sweep = sweeps.start(job(), axes)
    for run, result in zip(sweep.runs(), results, strict=True):
        finish(run, *result)
    return sweep_results.table(sweep)


def test_the_table_has_each_runs_values_and_numbers() -> None:
    table = done(ranks(4, 8), (2.0, 1.5), (1.9, 1.4))
    assert [row.values for row in table.rows] == [{"lora.r": 4}, {"lora.r": 8}]
    facts = table.rows[0].facts
    assert (facts.name, facts.state) == ("first try, rank 4", "completed")
    assert (facts.train_loss, facts.held_out_loss) == (2.0, 1.5)
    assert (facts.peak_bytes, facts.tokens_per_second, facts.device) == (2_000, 150.0, "cpu")


def test_the_lowest_held_out_loss_is_best_whatever_the_training_loss_says() -> None:
    table = done(ranks(4, 8, 16), (2.0, 1.5), (1.9, 1.4), (0.1, 1.9))
    verdict = table.verdict
    assert (verdict.by, verdict.best, verdict.loss) == ("held_out", {"lora.r": 8}, 1.4)
    assert [table.is_best(row) for row in table.rows] == [False, True, False]
    assert verdict.text.startswith("Rank 8 gave the lowest held-out loss, 1.400.")
    assert "chance" in verdict.text


def test_the_kept_models_loss_counts_not_that_of_the_last_test() -> None:
    best = RunCompleted(folder="x", best_step=1, best_loss=1.2)
    table = done(ranks(4, 8), (2.0, 1.5), (1.9, 1.9, best))
    assert table.verdict.best == {"lora.r": 8} and table.verdict.loss == 1.2


def test_what_lies_close_to_the_best_is_named_beside_it() -> None:
    verdict = done(ranks(4, 8, 16), (2.0, 1.42), (1.9, 1.425), (1.8, 1.6)).verdict
    assert [values for values, _ in verdict.close] == [{"lora.r": 8}]
    assert "Only a little higher: rank 8 by 0.005." in verdict.text


def test_without_held_out_rows_the_training_loss_decides_and_that_is_said() -> None:
    verdict = done(ranks(4, 8), (2.0,), (1.9,)).verdict
    assert (verdict.by, verdict.best) == ("training", {"lora.r": 8})
    assert "No rows were held out" in verdict.text


def test_training_losses_are_not_compared_where_they_do_not_mean_the_same() -> None:
    sizes = [Axis(field="dataset.max_rows", values=(10, 20))]
    verdict = done(sizes, (2.0,), (1.0,)).verdict
    assert (verdict.by, verdict.best) == ("", {})
    assert "say nothing about these settings" in verdict.text


def test_a_failed_run_keeps_its_cause_and_does_not_count() -> None:
    failed = RunFailed(code="x", message="The card ran out of memory.", remedy="Choose less.")
    table = done(ranks(4, 8, 16), (2.0, 1.5), (1.9, 1.4), (None, 0.1, failed))
    assert table.verdict.best == {"lora.r": 8}
    assert "Without 1 run that did not come to the end." in table.verdict.text
    assert table.rows[2].facts.state == "failed"
    assert table.rows[2].facts.cause == "The card ran out of memory. Choose less."


def test_with_fewer_than_two_results_there_is_nothing_to_compare() -> None:
    sweep = sweeps.start(job(), ranks(4, 8))
    finish(sweep.runs()[0], 2.0, 1.5)
    table = sweep_results.table(sweep)
    assert [row.facts.state for row in table.rows] == ["completed", "queued"]
    assert table.verdict.best == {} and "nothing to compare" in table.verdict.text


def seeded(*held_out: float) -> sweep_results.Verdict:
    axes = [*ranks(4, 8), Axis(field="training.seed", values=(1, 2))]
    return done(axes, *((2.0, one) for one in held_out)).verdict


def test_seeds_show_how_much_is_chance() -> None:
    verdict = seeded(1.50, 1.60, 1.52, 1.54)
    assert (verdict.best, verdict.seeds) == ({"lora.r": 8}, 2)
    assert verdict.loss == pytest.approx(1.53) and verdict.spread == pytest.approx(0.10)
    assert "mean held-out loss of 2 seeds" in verdict.text
    assert "that difference may be chance" in verdict.text


def test_a_difference_larger_than_that_of_seeds_is_not_called_chance() -> None:
    verdict = seeded(1.90, 1.91, 1.40, 1.41)
    assert verdict.best == {"lora.r": 8}
    assert "Seeds alone changed the loss by up to 0.010." in verdict.text
    assert "may be chance" not in verdict.text


def test_seeds_alone_tell_how_large_chance_is_and_name_no_best() -> None:
    axes = [Axis(field="training.seed", values=(1, 2, 3))]
    verdict = done(axes, (2.0, 1.4), (2.0, 1.5), (2.0, 1.6)).verdict
    assert verdict.best == {} and verdict.spread == pytest.approx(0.2)
    assert verdict.text.startswith("The mean held-out loss of 3 seeds is 1.500.")


def test_a_loss_that_is_no_number_never_wins() -> None:
    verdict = done(ranks(4, 8, 16), (2.0, 1.5), (1.9, 1.4), (0.1, float("nan"))).verdict
    assert (verdict.by, verdict.best) == ("held_out", {"lora.r": 8})
    assert "Without 1 run" in verdict.text
