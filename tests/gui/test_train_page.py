"""The Train page: the same picture from live events and from history, and every ending."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QLabel, QPlainTextEdit, QProgressBar, QPushButton
from pytestqt.qtbot import QtBot

from app.models.run_curves import JournalPart
from app.pages.train import TrainPage
from app.widgets.training.stat_tile import StatTile
from training_backend import runs
from training_backend.errors import Problem
from training_backend.job import parse_job
from training_backend.lifecycle import journal
from training_backend.lifecycle.journal import JournalWriter
from training_backend.protocol import (
    CheckpointSaved,
    EvaluationLogged,
    Event,
    LogLine,
    MemorySampled,
    MetricsLogged,
    PhaseChanged,
    RunCompleted,
    RunFailed,
    RunInterrupted,
    RunStarted,
    RunStopped,
    SampleGenerated,
    WarningRaised,
)
from training_backend.runs import Run

QUESTION = "How do I reset <b>my</b> password?"


@pytest.fixture
def page(qtbot: QtBot) -> TrainPage:
    made = TrainPage()
    qtbot.addWidget(made)
    made.resize(1072, 720)
    made.set_draft_summary("first try", "a model on some data", True, "")
    made.show()
    return made


@pytest.fixture
def run(home: Path) -> Run:
    job = parse_job(
        {
            "version": 1,
            "name": "Support style",
            "model": {"id": "demo"},
            "dataset": {"path": "demo"},
            "evaluation": {"prompts": [QUESTION]},
        }
    )
    return runs.create(job)


def _journal(run: Run, *events: Event) -> list[Event]:
    writer = JournalWriter(run.folder)
    for event in events:
        writer.append(event)
    writer.close()
    return run.events()


def _beginning(run: Run) -> list[Event]:
    return [
        RunStarted(run_id=run.id, folder=str(run.folder), pid=1),
        PhaseChanged(phase="quantising", detail="the base model, to 4 bits"),
        SampleGenerated(step=0, prompt=QUESTION, answer="I am <i>sorry</i>."),
        PhaseChanged(
            phase="training",
            total_steps=900,
            trainable_parameters=4_884_480,
            total_parameters=139_400_000,
            rows=228,
            trained_token_share=0.31,
        ),
        MemorySampled(
            device="cpu", process_bytes=2**30, device_used_bytes=2**31, device_total_bytes=2**34
        ),
        MetricsLogged(
            step=412,
            total_steps=900,
            epoch=1.4,
            loss=1.284,
            learning_rate=1.6e-4,
            tokens_per_second=2410.2,
            seconds_left=540,
        ),
        EvaluationLogged(step=400, epoch=1.3, loss=1.341),
        CheckpointSaved(step=400, path="x", bytes=5 * 2**20),
        LogLine(message="a <b>line</b>"),
    ]


def _button(page: TrainPage, name: str) -> QPushButton:
    return page.findChild(QPushButton, name)


def _texts(page: TrainPage) -> set[str]:
    return {label.text() for label in page.findChildren(QLabel) if label.isVisibleTo(page)}


def test_idle_it_shows_what_start_would_run(page: TrainPage, qtbot: QtBot) -> None:
    assert page.header.title.text() == "first try"
    assert not _button(page, "stopButton").isVisible()
    with qtbot.waitSignal(page.start_requested):
        qtbot.mouseClick(_button(page, "startButton"), Qt.MouseButton.LeftButton)
    assert not _button(page, "startButton").isEnabled()  # being checked
    page.show_problems([Problem("model.id", "No model folder at <b>x</b>.")])
    assert "No model folder at <b>x</b>." in _texts(page)
    assert _button(page, "startButton").isEnabled()
    page.set_draft_summary("first try", "another model on some data", True, "")
    assert "No model folder at <b>x</b>." not in _texts(page)  # it has been mended since


def test_a_draft_with_mistakes_cannot_start(page: TrainPage) -> None:
    page.set_draft_summary("first try", "", False, "2 settings need a look first.")
    assert not _button(page, "startButton").isEnabled()
    assert page.header.subtitle.text() == "2 settings need a look first."


@pytest.mark.parametrize("way", ["live", "history"])
def test_live_and_history_draw_the_same(page: TrainPage, run: Run, qtbot: QtBot, way: str) -> None:
    if way == "live":
        page.open_run(run, live=True)
        for event in _journal(run, *_beginning(run)):
            page.apply(event)
    else:
        _journal(run, *_beginning(run), RunStopped(step=412, checkpoint="checkpoint-412"))
        page.open_run(run, live=False)
    qtbot.waitUntil(lambda: page._shown.caught_up and page._shown.last_seq >= 8)
    page.render_now()
    page.charts.loss.plot.redraw()
    shown = _texts(page)
    assert {"412 of 900", "1.284", "1.341", "perplexity 3.82", "2,410", "1.6e-4"} <= shown
    assert page.header.title.text() == "Support style"
    assert page.header.subtitle.text() == (
        "SmolLM2-135M-Instruct on support.jsonl, QLoRA r 16, epoch 2 of 3"
    )
    assert any("4.9 million of 139.4 million parameters" in text for text in shown)
    assert page.findChild(QProgressBar, "progressBar").value() == round(1_000 * 412 / 900)
    log = page.findChild(QPlainTextEdit, "logView").toPlainText()
    assert "a <b>line</b>" in log
    assert "Checkpoint at step 400 saved (5 MB)" in log
    assert "Held-out loss after step 400: 1.341 (perplexity 3.82)" in log
    assert page.answers.answers(QUESTION)[0] == "I am <i>sorry</i>."
    assert list(page.charts.loss.plot.listDataItems()[0].xData) == [412]
    assert _button(page, "stopButton").isVisible() == (way == "live")
    eta = page.findChild(QLabel, "etaLabel").text()
    assert eta.startswith("about 9 min left, done at") == (way == "live")


def test_both_charts_are_whole_in_a_small_window(page: TrainPage, run: Run, qtbot: QtBot) -> None:
    page.open_run(run, live=True)
    qtbot.waitUntil(lambda: page._shown.caught_up)
    chart = page.charts.memory
    qtbot.waitUntil(lambda: chart.y() > page.charts.loss.y())
    bottom = chart.mapTo(page, chart.rect().bottomLeft()).y()
    assert bottom < page.height()
    for card in (page.charts.loss, chart):
        assert card.height() >= card.minimumSizeHint().height()  # its axis is not cut


def test_a_worker_that_died_unnoticed_is_told_when_its_run_is_opened(
    page: TrainPage, run: Run, qtbot: QtBot
) -> None:
    _journal(run, *_beginning(run))
    page.open_run(run, live=False)
    qtbot.waitUntil(lambda: page._shown.terminal is not None)
    page.render_now()
    assert page.outcome.title.text() == "Interrupted"
    assert run.state() == "interrupted"


def test_events_that_come_twice_or_early_count_once(
    page: TrainPage, run: Run, qtbot: QtBot
) -> None:
    events = _journal(run, *_beginning(run))
    page.open_run(run, live=True)
    late = MetricsLogged(seq=9, step=413, total_steps=900, epoch=1.4, loss=1.2)
    page.apply(late)  # before the file has been read
    assert page._shown.metrics is None
    page.replay(events)
    page.replay(events)
    assert page._shown.metrics == late
    assert list(page.charts.loss._each.xs) == [412, 413]
    qtbot.wait(50)


def test_each_ending_says_what_to_do(page: TrainPage, run: Run, qtbot: QtBot) -> None:
    beginning = _beginning(run)

    def end(event: Event, is_as_wanted: Callable[[], bool]) -> None:
        page.open_run(run, live=True)
        page._shown.caught_up = True
        for one in [*beginning, event]:
            page.apply(one)
        page.render_now()
        assert not _button(page, "stopButton").isVisible()
        assert page.outcome.isVisible()
        assert is_as_wanted()

    end(
        RunCompleted(folder="x", step=900),
        lambda: page.outcome.title.text() == "Completed" and page.outcome._export.isVisible(),
    )
    page.apply(PhaseChanged(phase="sampling"))
    page.render_now()
    assert page.progress.title.text() == "Training"  # it is not answering questions any more
    with qtbot.waitSignal(page.export_requested) as asked:
        page.outcome._export.click()
    assert asked.args == [run]
    end(
        RunStopped(step=412, checkpoint="checkpoint-412"),
        lambda: (
            "step 412" in page.outcome.text()
            and _button(page, "resumeButton").isVisible()
            and page.outcome._export.isVisible()
        ),
    )
    with qtbot.waitSignal(page.resume_requested) as asked:
        _button(page, "resumeButton").click()
    assert asked.args == [run]
    end(
        RunStopped(checkpoint=None),
        lambda: not _button(page, "resumeButton").isVisible(),
    )
    end(
        RunFailed(code="x", message="The {card} is full.", remedy="Choose less."),
        lambda: page.outcome.text() == "The {card} is full. Choose less.",
    )
    page.outcome._copy.click()
    assert "The {card} is full." in QGuiApplication.clipboard().text()
    end(
        RunInterrupted(cause="signal", detail="Ended by SIGKILL.", log_tail="last <b>words</b>"),
        lambda: (
            page.outcome.text() == "Ended by SIGKILL." and _button(page, "resumeButton").isVisible()
        ),
    )


def test_a_result_that_is_worse_than_the_beginning_is_said_with_the_outcome(
    page: TrainPage, run: Run
) -> None:
    page.open_run(run, live=True)
    page._shown.caught_up = True
    rose = WarningRaised(code="loss_rose", message="The loss rose from 5 to 53.")
    for event in [*_beginning(run), rose, RunCompleted(folder="x", step=900)]:
        page.apply(event)
    page.render_now()
    assert page.outcome.text().startswith("The loss rose from 5 to 53. The training took")
    assert page.outcome.title.property("role") == "careful"
    assert page.outcome._export.isVisible() and not page.outcome._export.property("primary")


def test_learning_by_heart_is_said_at_once_and_of_the_result_only_where_that_suffers(
    page: TrainPage, run: Run
) -> None:
    said = "Since step 50 the held-out loss rises."
    parting = WarningRaised(code="overfitting", message=said, params={"step": 50})
    page.open_run(run, live=True)
    page._shown.caught_up = True
    for event in [*_beginning(run), parting]:
        page.apply(event)
    page.render_now()
    assert said in _texts(page)
    page.apply(RunStarted(run_id=run.id, folder="x", attempt=2, resumed_from_step=400, pid=2))
    page.render_now()
    assert said in _texts(page)

    kept = RunCompleted(folder="x", step=412, early_stopped_after=3, best_step=50, best_loss=1.25)
    page.apply(kept)
    page.render_now()
    assert page.outcome.text().startswith(
        "Stopped early at step 412: the held-out loss had not improved for 3 tests. What is kept "
        "is the model of step 50, with the lowest held-out loss (1.250). The training took"
    )
    assert page.outcome.title.property("role") == "good"
    assert said not in _texts(page)

    page.open_run(run, live=True)
    page._shown.caught_up = True
    for event in [*_beginning(run), parting, RunCompleted(folder="x", step=412)]:
        page.apply(event)
    page.render_now()
    assert page.outcome.text().startswith(f"{said} The training took")
    assert page.outcome.title.property("role") == "careful"


def test_what_stands_beside_a_number_gives_way_in_a_narrow_tile(qtbot: QtBot) -> None:
    tile = StatTile("Held-out")
    qtbot.addWidget(tile)
    tile.show_value("1.341", "perplexity 3.82")
    tile.resize(300, 50)
    tile.show()
    assert "perplexity 3.82" in {label.text() for label in tile.findChildren(QLabel)}
    assert tile.minimumSizeHint().width() < 96
    tile.resize(96, 50)
    assert "perplexity 3.82" not in {label.text() for label in tile.findChildren(QLabel)}
    assert tile.accessibleName() == "Held-out: 1.341, perplexity 3.82"


def test_the_end_of_an_earlier_attempt_is_not_the_end_of_a_resumed_run(
    page: TrainPage, run: Run, qtbot: QtBot
) -> None:
    first = _journal(run, *_beginning(run), RunStopped(step=412, checkpoint="checkpoint-412"))
    page.open_run(run, live=True)  # the new worker is still waking up
    page.replay(first)
    assert _button(page, "stopButton").isVisible()
    assert not page.outcome.isVisible()
    # An end that only the file had is told by the one who follows the run.
    again = RunStarted(run_id=run.id, folder="x", attempt=2, resumed_from_step=412, pid=2)
    page.replay(_journal(run, again, RunCompleted(folder="y", step=900))[len(first) :])
    page.finish(run, RunCompleted(folder="y", step=900))
    assert page.outcome.title.text() == "Completed"
    assert not _button(page, "stopButton").isVisible()
    qtbot.wait(50)


def test_stop_is_asked_once_and_then_offers_to_end(page: TrainPage, run: Run, qtbot: QtBot) -> None:
    page.open_run(run, live=True)
    stop = _button(page, "stopButton")
    with qtbot.waitSignal(page.stop_requested):
        stop.click()
    assert not stop.isEnabled()
    page.buttons.offer_to_end()
    assert stop.isEnabled()
    assert stop.text() == "End without saving"
    with (
        qtbot.waitSignal(page.end_requested),
        qtbot.assertNotEmitted(page.stop_requested),
    ):
        stop.click()


def test_an_old_run_leads_back_to_the_live_one(
    page: TrainPage, run: Run, home: Path, qtbot: QtBot
) -> None:
    old = runs.create(run.job())
    _journal(old, *_beginning(old), RunCompleted(folder="x"))
    page.open_run(run, live=True)
    page.open_run(old, live=False)
    back = _button(page, "backToCurrentButton")
    assert back.isVisible()
    with qtbot.waitSignal(page.back_to_current_requested):
        back.click()
    page.apply(RunCompleted(folder="y"))  # the live one, behind the scenes
    page.render_now()
    assert not back.isVisible()
    qtbot.waitUntil(lambda: page._shown.terminal is not None)


def test_a_long_history_is_drawn_quickly(page: TrainPage, run: Run) -> None:
    events: list[Event] = [
        MetricsLogged(seq=seq, step=seq + 1, total_steps=20_000, epoch=1.0, loss=1.0)
        for seq in range(20_000)
    ]
    page.replay(events)
    page.charts.loss.plot.redraw()
    assert page.progress._step.value.text() == "20,000 of 20,000"


def test_a_long_history_comes_in_parts_and_draws_the_same(
    page: TrainPage, run: Run, qtbot: QtBot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.models.run_curves.EVENTS_A_PART", 1)
    monkeypatch.setattr(journal.pieces, "__defaults__", (2_000,))
    first = RunStarted(run_id=run.id, folder=str(run.folder), pid=1)
    again = first.model_copy(update={"attempt": 2, "resumed_from_step": 40})
    steps = [
        MetricsLogged(step=step, total_steps=90, epoch=1.0, loss=100.0 / step)
        for step in (*range(1, 61), *range(41, 81))
    ]
    events = _journal(run, first, *steps[:60], RunStopped(step=60), again, *steps[60:])
    shares: list[str] = []
    take = TrainPage._take_part

    def take_and_look(page: TrainPage, part: JournalPart) -> None:
        take(page, part)
        page.render_now()
        shares.append(page.header.subtitle.text())

    monkeypatch.setattr(TrainPage, "_take_part", take_and_look)
    page.open_run(run, live=True)
    qtbot.waitUntil(lambda: page._shown.caught_up)
    assert len(shares) > 5
    assert shares[0].startswith("reading what was logged, ")
    assert not page.header.subtitle.text().startswith("reading")
    assert page._shown.last_seq == events[-1].seq
    in_parts = page._shown.loss.value, list(page.charts.loss._each.xs)
    page.open_run(run, live=True)
    page.replay(events)
    assert (page._shown.loss.value, list(page.charts.loss._each.xs)) == in_parts
    assert in_parts[1] == list(range(1, 81))


# --------------------------------------------------------------------------- slow without an error


def _slow_run(run: Run) -> list[Event]:
    steps: list[Event] = [
        MetricsLogged(step=step, total_steps=40, epoch=1.0, loss=2.0, tokens_per_second=100.0)
        for step in range(1, 31)
    ]
    slow = WarningRaised(
        code="slow_other_program",
        message="Since step 12 a step takes longer. Another program uses the card (<b>).",
        params={"factor": "3.0"},
        since=12,
    )
    return [*_beginning(run), *steps[:20], slow, *steps[20:]]


def test_slow_steps_are_told_while_they_last_and_marked_on_the_charts(
    page: TrainPage, run: Run
) -> None:
    page.open_run(run, live=True)
    page.replay(_journal(run, *_slow_run(run)))
    notice = page.findChild(QLabel, "trainNotice")
    assert notice.isVisibleTo(page) and "Another program uses the card (<b>)." in notice.text()
    charts = (page.charts.loss, page.charts.speed)
    for chart in charts:
        chart.plot.redraw()
        assert chart.marks.words_at(11) == [] and chart.marks.words_at(12)
        assert chart.marks.words_at(30) == ["another program, 3.0 × the time"]  # it goes on
        assert "another program" in chart._readout(20)[1]
    over = WarningRaised(code="as_fast_again", message="Over.", since=12, until=25, seq=10_000)
    page.apply(over)
    page.render_now()
    assert not notice.isVisibleTo(page)
    for chart in charts:
        assert chart.marks.words_at(25) and chart.marks.words_at(26) == []


def test_a_mark_is_text_beside_a_band_and_follows_the_zoom(page: TrainPage, run: Run) -> None:
    page.open_run(run, live=True)
    page.replay(_journal(run, *_slow_run(run)))
    plot = page.charts.loss.plot
    plot.redraw()
    (band,) = page.charts.loss.marks._bands
    assert band.region.isVisible() and band.text.isVisible()
    assert band.region.getRegion()[0] == 12
    plot.zoom_to(20, 25)
    assert band.region.getRegion() == (20, 25)
    plot.zoom_to(2, 8)
    assert not band.region.isVisible() and not band.text.isVisible()
    page.open_run(run, live=False)  # another run, as far as the charts know
    assert page.charts.loss.marks._bands == []
