"""What `lint` found in the data, each with what can be done about it, and what is done."""

from __future__ import annotations

import re
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QHBoxLayout,
    QInputDialog,
    QProgressBar,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.i18n import integer, number
from app.widgets.card import (
    Card,
    ElidedLabel,
    QuietButton,
    SecondaryButton,
    plain_label,
    plain_tool_tip,
    scroll_area,
    secondary_label,
)
from training_backend.job_data import MAX_FIX_ROWS

COUNT_WIDTH = 72
_ROLES = {"error": "error", "warning": "careful", "info": "secondary"}
# These are judged over all rows, so that a fix has to list theirs.
_FOUND_AT_THE_END = frozenset({"near_duplicates", "extreme_length"})
LENGTH_STEP = 64
_PLACEHOLDER = re.compile(r"\{\{\s*(.*?)\s*\}\}")


class FindingsCard(Card):
    """Findings with one-click fixes; progress while all rows are gone through.

    Signals: `fix_requested` a fix of the job to add, `length_requested` a max_length to set,
    `fix_removed` the place of a fix in the job, `rows_requested` the rows of a finding with
    its words, `cancel_requested` and `check_requested` (with near duplicates or without).
    """

    fix_requested = Signal(object)
    length_requested = Signal(int)
    fix_removed = Signal(int)
    rows_requested = Signal(object, str)
    cancel_requested = Signal()
    check_requested = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__("", parent)
        self.set_title(self.tr("Found in the data"))
        self.title.setMinimumHeight(24)  # also while there are no buttons beside it
        self._report: dict[str, Any] | None = None
        self._fixes: list[dict[str, Any]] = []
        self._state = ElidedLabel()  # in the smallest window the button beside it goes before
        self._state.setProperty("role", "secondary")
        self._state.setFont(theme.font(13, tabular=True))
        self.add_right(self._state)
        self._near = QuietButton(self.tr("Look for near duplicates"))
        self._near.clicked.connect(lambda: self.check_requested.emit(True))
        self._cancel = QuietButton(self.tr("Cancel"))
        self._cancel.setObjectName("lintCancelButton")
        self._cancel.clicked.connect(self.cancel_requested)
        self.add_right(self._near)
        self.add_right(self._cancel)
        self._bar = QProgressBar()
        self._bar.setAccessibleName(self.tr("Rows checked"))
        policy = self._bar.sizePolicy()
        policy.setRetainSizeWhenHidden(True)  # nothing jumps when it comes and goes
        self._bar.setSizePolicy(policy)
        self._list = QVBoxLayout()
        self._list.setContentsMargins(0, 0, 8, 0)
        self._list.setSpacing(6)
        scrolled = QWidget()
        scrolled.setObjectName("scrolled")
        outer = QVBoxLayout(scrolled)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addLayout(self._list)
        outer.addStretch(1)
        area = scroll_area(scrolled)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # its buttons take it
        self.body.addWidget(area, 1)
        self.body.addWidget(self._bar)
        self.show_waiting("")

    # ---------------------------------------------------------------------------- what to show

    def show_waiting(self, text: str) -> None:
        """Nothing is known yet; says why."""
        self._report = None
        self._set_running(False)
        self._state.setText("")
        self._rebuild(text)

    def show_progress(self, rows: int, total: int | None) -> None:
        """All rows are being gone through; what was found before stays."""
        self._set_running(True)
        self._bar.setRange(0, total or 0)
        self._bar.setValue(min(rows, total or 0))
        self._state.setText(
            self.tr("{rows} of {total} rows").format(rows=integer(rows), total=integer(total))
            if total
            else self.tr("{rows} rows").format(rows=integer(rows))
        )

    def show_cancelled(self) -> None:
        self._set_running(False)
        self._state.setText(self.tr("not checked to the end"))
        again = SecondaryButton(self.tr("Check again"))
        again.clicked.connect(lambda: self.check_requested.emit(False))
        self._rebuild(self.tr("The check was cancelled."), again)

    def show_problem(self, message: str, action: SecondaryButton | None = None) -> None:
        """One sentence why there is nothing, with the next step."""
        self.show_waiting("")
        self._rebuild(message, action)

    def show_report(self, report: dict[str, Any]) -> None:
        self._report = report
        self._set_running(False)
        rows = report["rows"]
        words = self.tr("{rows} row checked") if rows == 1 else self.tr("{rows} rows checked")
        self._state.setText(words.format(rows=integer(rows)))
        self._rebuild()

    def show_fixes(self, fixes: list[dict[str, Any]]) -> None:
        """The fixes of the job, in their order."""
        if fixes != self._fixes:
            self._fixes = [dict(fix) for fix in fixes]
            self._rebuild()

    # ------------------------------------------------------------------------------- the lines

    def _set_running(self, running: bool) -> None:
        self._bar.setVisible(running)
        self._cancel.setVisible(running)
        self._near.setVisible(not running and self._report is not None)

    def _rebuild(self, text: str = "", action: QWidget | None = None) -> None:
        while (item := self._list.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                widget.hide()
                widget.deleteLater()
        if text:
            self._list.addWidget(secondary_label(text, wrap=True))
        if action is not None:
            self._list.addWidget(action, 0, Qt.AlignmentFlag.AlignLeft)
        if self._report is not None:
            for finding in self._report["findings"]:
                self._list.addWidget(self._finding_line(finding))
            if not any(f["severity"] == "error" for f in self._report["findings"]):
                nothing = self.tr("have unknown roles, empty answers or nothing to learn from")
                self._list.addWidget(self._line(self.tr("0 rows"), "good", nothing))
            for notice in self._report["notices"]:
                self._list.addWidget(self._line(self.tr("note"), "secondary", notice))
        for place, fix in enumerate(self._fixes):
            self._list.addWidget(self._fix_line(place, fix))

    def _line(self, count: str, role: str, text: str, *buttons: QWidget) -> QWidget:
        line = QWidget()
        line.setMinimumHeight(30)
        row = QHBoxLayout(line)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        number_of = plain_label(count)
        number_of.setFont(theme.font(13, tabular=True))
        number_of.setProperty("role", role)
        number_of.setFixedWidth(COUNT_WIDTH)
        row.addWidget(number_of)
        row.addWidget(plain_label(text, wrap=True), 1)
        for button in buttons:
            row.addWidget(button)
        return line

    def _finding_line(self, finding: dict[str, Any]) -> QWidget:
        count = self.tr("{count} rows") if finding["count"] != 1 else self.tr("{count} row")
        text = self._words(finding)
        show = QuietButton(self.tr("Show"))
        show.setAccessibleName(self.tr("Show the rows that {what}").format(what=text))
        show.clicked.connect(lambda: self.rows_requested.emit(finding["rows"], text))
        buttons: list[QWidget] = [show] if finding["rows"] else []
        fix = self._fix_button(finding)
        if fix is not None:
            fix.setAccessibleName(f"{fix.text()}: {text}")
            buttons.append(fix)
        return self._line(
            count.format(count=integer(finding["count"])),
            _ROLES[finding["severity"]],
            text,
            *buttons,
        )

    def _fix_button(self, finding: dict[str, Any]) -> SecondaryButton | None:
        code, fix = finding["code"], finding["fix"]
        longest = self._numbers().get("longest", 0)
        if code == "truncated" and 0 < longest <= 8 * self._numbers()["max_length"]:
            length = -(-longest // LENGTH_STEP) * LENGTH_STEP
            button = SecondaryButton(
                self.tr("Raise the length to {length}").format(length=integer(length))
            )
            button.clicked.connect(lambda: self.length_requested.emit(length))
            return button
        if fix is None or (fix == "drop_rows" and self._drop(finding) is None):
            return None
        titles = {
            "drop_rows": self.tr("Leave them out"),
            "deduplicate": self.tr("Keep one of each"),
            "drop_overlap": self.tr("Leave them out of the test"),
            "strip_control_tokens": self.tr("Remove the tokens"),
            "repair_encoding": self.tr("Repair the texts"),
            "fill_placeholders": self.tr("Fill it in"),
            "set_system_prompt": self.tr("Set another"),
        }
        button = SecondaryButton(titles[fix])
        button.clicked.connect(lambda: self._fix(finding))
        return button

    def _fix(self, finding: dict[str, Any]) -> None:
        fix: dict[str, Any] | None = {"code": finding["fix"]}
        match finding["fix"]:
            case "drop_rows":
                fix = self._drop(finding)
            case "fill_placeholders":
                fix = self._ask_for_placeholder(finding)
            case "set_system_prompt":
                fix = self._ask_for_system_prompt()
        if fix is not None and fix not in self._fixes:
            self.fix_requested.emit(fix)

    def _drop(self, finding: dict[str, Any]) -> dict[str, Any] | None:
        if finding["code"] not in _FOUND_AT_THE_END:
            return {"code": "drop_rows", "finding": finding["code"], "rows": []}
        if len(finding["rows"]) < finding["count"] or finding["count"] > MAX_FIX_ROWS:
            return None
        return {"code": "drop_rows", "finding": None, "rows": finding["rows"]}

    def _ask_for_placeholder(self, finding: dict[str, Any]) -> dict[str, Any] | None:
        match = _PLACEHOLDER.search(finding["message"])
        if match is None:
            return None
        text, said = QInputDialog.getText(
            self,
            self.tr("Fill in a placeholder"),
            # The dialog's own label guesses whether it is markup, as a tool tip does.
            plain_tool_tip(self.tr("Write in the place of {name}:").format(name=match[1])),
        )
        return {"code": "fill_placeholders", "values": {match[1]: text}} if said else None

    def _ask_for_system_prompt(self) -> dict[str, Any] | None:
        text, said = QInputDialog.getMultiLineText(
            self,
            self.tr("System prompt"),
            self.tr("What every conversation without a system prompt begins with:"),
        )
        return {"code": "set_system_prompt", "text": text} if said and text.strip() else None

    def _fix_line(self, place: int, fix: dict[str, Any]) -> QWidget:
        text = self._fix_words(fix)
        remove = QuietButton(self.tr("Undo"))
        remove.setAccessibleName(self.tr("Undo: {what}").format(what=text))
        remove.clicked.connect(lambda: self.fix_removed.emit(place))
        return self._line(self.tr("fixed"), "good", text, remove)

    # ------------------------------------------------------------------------------- the words

    def _numbers(self) -> dict[str, Any]:
        return self._report["numbers"] if self._report else {}

    def _words(self, finding: dict[str, Any]) -> str:
        """What the rows are or have, to go behind their number."""
        numbers = self._numbers()
        words = {
            "empty_answer": self.tr("have an empty answer"),
            "no_answer": self.tr("have no answer"),
            "empty_turn": self.tr("have an empty question"),
            "null_content": self.tr("have null in the place of a text"),
            "no_messages": self.tr("have no list of messages"),
            "not_text": self.tr("hold pictures or other media"),
            "bad_tool_call": self.tr("have a damaged tool call"),
            "bad_weight": self.tr("have a weight that is no number"),
            "format_unknown": self.tr("are of another form than the rest"),
            "answer_left_out": self.tr("have an answer that the chat template leaves out"),
            "labelled_bad": self.tr("are labelled as bad answers and left out"),
            "no_end_token": self.tr(
                "end an answer without an end token: the model may not learn to stop"
            ),
            "truncated": self.tr(
                "are longer than {length} tokens; {share}\u00a0% of all tokens would be cut"
            ).format(
                length=integer(numbers.get("max_length", 0)),
                share=number(100 * numbers.get("cut_tokens_share", 0)),
            ),
            "control_tokens": self.tr("have control tokens of the model inside their text"),
            "encoding_damage": self.tr("have damaged characters, as in CafÃ©"),
            "hidden_characters": self.tr("have invisible control characters"),
            "role_order": self.tr("do not alternate between question and answer"),
            "duplicates": self.tr("stand in the data twice"),
            "near_duplicates": self.tr("are nearly the same as an earlier one"),
            "overlap": self.tr("of the test file are trained on too"),
            "extreme_length": self.tr("are more than 20 times as long as the median"),
        }
        if finding["code"] == "own_system_prompt":
            prompt = finding["message"].partition(": ")[2]
            return self.tr("get a system prompt from the chat template: {text}").format(text=prompt)
        return words.get(finding["code"], str(finding["message"]))

    def _fix_words(self, fix: dict[str, Any]) -> str:
        match fix["code"]:
            case "drop_rows":
                if not fix.get("finding"):
                    count = integer(len(fix.get("rows", ())))
                    return self.tr("{count} rows are left out").format(count=count)
                finding = {"code": fix["finding"], "message": fix["finding"].replace("_", " ")}
                words = (
                    self.tr("are too long")
                    if fix["finding"] == "truncated"
                    else self._words(finding)
                )
                return self.tr("Left out: rows that {what}").format(what=words)
            case "deduplicate":
                return self.tr("Of equal rows one is kept")
            case "drop_overlap":
                return self.tr("The test leaves out rows that are trained on")
            case "strip_control_tokens":
                return self.tr("Control tokens are removed from the texts")
            case "repair_encoding":
                return self.tr("Damaged characters are repaired")
            case "fill_placeholders":
                names = ", ".join(fix.get("values", {}))
                return self.tr("Placeholders are filled in: {names}").format(names=names)
            case "set_system_prompt":
                return self.tr("System prompt: {text}").format(text=fix.get("text", ""))
        return str(fix["code"])
