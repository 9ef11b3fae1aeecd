"""Scores of a run's answers: told in words, with what may be chance named so."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel
from pytestqt.qtbot import QtBot

from app.pages.train import TrainPage
from app.widgets.training.scores_card import ScoresCard
from training_backend.protocol import AnswersScored, RunCompleted, RunStarted, Score, ScoredAnswer

SCORED = AnswersScored(
    step=20,
    rows=1200,
    scores=(
        Score(name="exact_match", before=0.0, after=0.04, margin=0.055),
        Score(name="f1", before=0.213, after=0.482, margin=0.061),
        Score(name="rouge_l", before=0.144, after=0.1, margin=0.03),
    ),
    examples=(ScoredAnswer(question="<b>Why</b>?", reference="So.", before="", after="So\u202e!"),),
)


@pytest.fixture
def card(qtbot: QtBot) -> ScoresCard:
    card = ScoresCard()
    qtbot.addWidget(card)
    return card


def texts(card: ScoresCard) -> list[str]:
    return [label.text() for label in card.findChildren(QLabel)]


def test_each_measure_says_before_after_and_whether_it_may_be_chance(card: ScoresCard) -> None:
    card.show_scores(SCORED)
    said = texts(card)
    assert card.isVisibleTo(None)
    assert any("1,200 held-out rows" in text for text in said)
    assert {"0 % → 4 %", "21 % → 48 %", "14 % → 10 %"} <= set(said)
    assert {"+4 points, may be chance", "+27 points, better", "−4 points, worse"} <= set(said)
    names = [label.accessibleName() for label in card.findChildren(QLabel)]
    assert "Exact match: 0 % → 4 %. +4 points, may be chance" in names


def test_answers_are_plain_text_and_hidden_signs_are_written_out(card: ScoresCard) -> None:
    card.show_scores(SCORED)
    assert {"<b>Why</b>?", "So.", "(an empty answer)", "So⟨U+202E⟩!"} <= set(texts(card))
    formats = {label.textFormat() for label in card.findChildren(QLabel)}
    assert formats == {Qt.TextFormat.PlainText}


def test_without_the_base_only_the_trained_model_is_told_of(card: ScoresCard) -> None:
    scores = tuple(
        Score(name=score.name, before=None, after=score.after) for score in SCORED.scores
    )
    examples = tuple(each.model_copy(update={"before": None}) for each in SCORED.examples)
    card.show_scores(SCORED.model_copy(update={"scores": scores, "examples": examples}))
    said = texts(card)
    assert {"4 %", "48 %", "10 %", "The trained model"} <= set(said)
    assert not any("base model" in text or "points" in text for text in said)


def test_new_scores_take_the_place_of_old_ones(card: ScoresCard, qtbot: QtBot) -> None:
    card.show_scores(SCORED)
    card.show_scores(SCORED.model_copy(update={"examples": (), "rows": 7}))
    assert "<b>Why</b>?" not in texts(card)
    assert sum(text == "21 % → 48 %" for text in texts(card)) == 1
    card.clear()
    assert not card.isVisibleTo(None)
    assert "21 % → 48 %" not in texts(card)


def test_the_train_page_shows_the_scores_of_its_run(qtbot: QtBot) -> None:
    page = TrainPage()
    qtbot.addWidget(page)
    assert not page.scores.isVisibleTo(page)
    page.replay([SCORED.model_copy(update={"seq": 0}), RunCompleted(folder="x", seq=1)])
    assert page.scores.isVisibleTo(page)
    # Whoever trains on has another model.
    page.replay([RunStarted(run_id="r", folder="x", attempt=2, pid=1, seq=2)])
    assert not page.scores.isVisibleTo(page)
