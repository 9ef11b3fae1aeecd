"""The answers to the fixed questions: base model and checkpoints side by side."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QLabel
from pytestqt.qtbot import QtBot

from app.models.told_answers import MOST_WORDS, ToldAnswers, changed_words
from app.widgets.training.answer_text import AnswerText
from app.widgets.training.answers import AnswersCard
from training_backend.protocol import SampleGenerated

QUESTION = "How do I reset <b>my</b> password?"


def base(answer: str, question: str = QUESTION) -> SampleGenerated:
    return SampleGenerated(step=0, prompt=question, answer=answer, base=True)


def after(step: int, answer: str, question: str = QUESTION) -> SampleGenerated:
    return SampleGenerated(step=step, prompt=question, answer=answer)


@pytest.fixture
def card(qtbot: QtBot) -> AnswersCard:
    made = AnswersCard()
    qtbot.addWidget(made)
    made.resize(900, 400)
    made.set_questions((QUESTION,))
    made.show()
    return made


def _texts(card: AnswersCard) -> list[str]:
    return [label.text() for label in card.findChildren(QLabel) if label.isVisible()]


def test_the_newest_answer_stands_beside_the_base_models_until_another_step_is_chosen(
    card: AnswersCard,
) -> None:
    assert card.answers(QUESTION) == (
        "Comes before the first step.", "Comes at the first checkpoint.",
    )  # fmt: skip
    assert not card.slider.isVisible()
    card.add(base("I cannot."))
    card.add(after(10, "I can, <i>maybe</i>."))
    assert card.answers(QUESTION) == ("I cannot.", "I can, <i>maybe</i>.")
    assert "The base model" in _texts(card) and "After step 10" in _texts(card)
    assert not card.slider.isVisible()  # there is nothing to choose yet

    card.add(after(20, "Yes, I can."))
    assert card.answers(QUESTION)[1] == "Yes, I can."
    assert card.slider.isVisible() and card.slider.value() == 1
    card.slider.setValue(0)
    assert card.answers(QUESTION)[1] == "I can, <i>maybe</i>."
    card.add(after(30, "Of course."))
    assert card.answers(QUESTION)[1] == "I can, <i>maybe</i>."  # as it was chosen
    card.slider.setValue(2)
    card.add(after(40, "Click here."))
    assert card.answers(QUESTION)[1] == "Click here."  # the newest again


def test_the_answers_of_the_model_that_is_kept_are_shown_when_the_run_has_ended(
    card: AnswersCard,
) -> None:
    for event in (base("No."), after(10, "Yes."), after(20, "Whale.")):
        card.add(event)
    card.show_kept(10)
    assert card.answers(QUESTION) == ("No.", "Yes.")
    assert "After step 10, kept" in _texts(card)
    card.set_questions((QUESTION,))  # of another run
    card.add(base("No."))
    card.add(after(10, "Yes."))
    card.add(after(20, "Whale."))
    card.show_kept(None)
    assert card.answers(QUESTION) == ("No.", "Whale.")


def test_words_that_the_answer_beside_does_not_have_are_marked(card: AnswersCard) -> None:
    row_of = card._rows[QUESTION]
    for event in (base("I cannot help you."), after(10, "I can help you.")):
        card.add(event)
    card.render_now()
    assert row_of.after.marked() == ["can"]
    assert "marked: changed by the training" in _texts(card)
    card.add(after(20, "I can help you 👋 now, friend."))
    card.render_now()
    assert row_of.after.marked() == ["can", "you 👋 now, friend."]
    assert row_of.before.marked() == []
    card.add(after(30, "I cannot help you."))
    card.render_now()
    assert row_of.after.marked() == []
    assert not [text for text in _texts(card) if text.startswith("marked")]


def test_the_card_is_whole_in_the_smallest_window(card: AnswersCard) -> None:
    for event in (base("No."), after(100_000, "Yes."), after(200_000, "Whale.")):
        card.add(event)
    card.show_kept(200_000)
    card.render_now()
    assert any(text.startswith("marked") for text in _texts(card))
    assert card.minimumSizeHint().width() <= 760  # 1,040 less the sidebar and the margins


def test_an_answer_is_as_high_as_its_text_and_never_markup(qtbot: QtBot) -> None:
    text = AnswerText()
    qtbot.addWidget(text)
    text.resize(300, 20)
    text.show()
    text.show_answer("<b>one</b> word")
    assert text.toPlainText() == "<b>one</b> word"
    low = text.height()
    text.show_answer("many words " * 60)
    assert text.height() > 5 * low
    narrow = text.height()
    text.resize(600, text.height())
    assert text.height() < 0.7 * narrow
    text.show_answer("turned \u202eround")
    assert "⟨U+202E⟩" in text.toPlainText()
    bars = text.verticalScrollBarPolicy(), text.horizontalScrollBarPolicy()
    assert bars == (Qt.ScrollBarPolicy.ScrollBarAlwaysOff,) * 2


def test_a_run_from_an_adapter_has_that_ones_answers_as_a_step_of_its_own() -> None:
    told = ToldAnswers()
    told.add(base("base"))
    told.add(after(0, "adapter"))
    told.add(after(10, "trained"))
    assert told.steps() == [0, 10]
    assert told.first(QUESTION) == "base"
    assert told.newest(QUESTION, 0) == (0, "adapter")


def test_of_an_older_run_the_answers_before_training_stand_for_the_base() -> None:
    told = ToldAnswers()
    told.add(after(0, "before"))
    told.add(after(10, "trained"))
    assert told.steps() == [10] and not told.knows_base()
    assert told.first(QUESTION) == "before"


def test_a_question_asked_once_keeps_its_answer_at_later_steps() -> None:
    told = ToldAnswers()
    for event in (base("b"), after(10, "x"), after(15, "asked", "Once?"), after(20, "y")):
        told.add(event)
    assert told.questions == [QUESTION, "Once?"]
    assert told.newest("Once?", 20) == (15, "asked")
    assert told.newest("Once?", 10) is None
    assert told.first("Once?") is None
    told.add(after(20, "of a later attempt"))
    assert told.newest(QUESTION, 20) == (20, "of a later attempt")


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abc"), max_size=12))
def test_what_is_not_marked_was_there_before_in_the_same_order(
    old: list[str], new: list[str]
) -> None:
    before, text = " ".join(old), " \n".join(new)
    marked = changed_words(before, text)
    assert all(0 <= begin < end <= len(text) for begin, end in marked)
    kept = list(text)
    for begin, end in marked:
        kept[begin:end] = " " * (end - begin)
    rest = iter(old)
    assert all(word in rest for word in "".join(kept).split())
    assert old != new or not marked
    assert not new or set(old) & set(new) or marked == [(0, len(text))]


def test_very_long_answers_are_shown_unmarked() -> None:
    assert changed_words("a", "b " * (MOST_WORDS + 1)) == []
    assert changed_words("a", "b " * 3) == [(0, 5)]
