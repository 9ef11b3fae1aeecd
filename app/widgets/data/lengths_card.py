"""How long the rows are, how many steps that makes, and how much of it is learned from."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QWidget

from app import theme
from app.i18n import integer
from app.widgets.card import Card, secondary_label
from app.widgets.data.length_histogram import LengthHistogram


class LengthsCard(Card):
    """Shows the numbers of a whole check of the data."""

    max_length_chosen = Signal(int)
    lengths_known = Signal(object)  # rows by their length in tokens; None while not known

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(self.tr("Length in tokens"), parent)
        self.title.setMinimumHeight(24)  # as high as that of the card beside it, which has buttons
        self._epoch = secondary_label()
        self._epoch.setFont(theme.font(13, tabular=True))
        self.add_right(self._epoch)
        self.histogram = LengthHistogram()
        self.histogram.max_length_chosen.connect(self.max_length_chosen)
        self.body.addWidget(self.histogram, 1)
        self._shares = secondary_label(wrap=True)
        self._shares.setFont(theme.font(13, tabular=True))
        self.body.addWidget(self._shares)

    def show_numbers(self, numbers: dict[str, Any] | None) -> None:
        """The `numbers` of a report on the data; None forgets them."""
        self.histogram.show_numbers(numbers)
        self.lengths_known.emit(self.histogram.lengths() if numbers is not None else None)
        if numbers is None:
            self._epoch.setText("")
            self._shares.setText("")
            return
        steps = numbers["steps_per_epoch"]
        words = (
            self.tr("{steps} step per epoch") if steps == 1 else self.tr("{steps} steps per epoch")
        )
        self._epoch.setText(words.format(steps=integer(steps)))
        self._shares.setText(
            self.tr("{share} % learned from, the median row has {median}").format(
                share=integer(round(100 * numbers["trained_share"])),
                median=integer(numbers["median"]),
            )
        )
