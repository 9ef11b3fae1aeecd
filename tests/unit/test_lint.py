"""Lint finds each kind of problem, names its rows and a fix; the fix of a job mends it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.byte_tokenizer import byte_tokenizer
from training_backend.data.fixes import repair_encoding
from training_backend.data.lint import KINDS, LintReport, lint
from training_backend.data.numbers import Numbers
from training_backend.data.preview import preview
from training_backend.data.training_rows import training_rows
from training_backend.errors import StopRequested, UserError
from training_backend.job import TrainingJob, parse_job
from training_backend.job_data import Fix


def chat(question: Any, answer: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question},
                         {"role": "assistant", "content": answer}]}  # fmt: skip


def job_of(tmp_path: Path, rows: list[Any], dataset: Any = None, **sections: Any) -> TrainingJob:
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    job = parse_job({
        "model": {"id": "x"}, "dataset": {"path": str(data), **(dataset or {})},
        "training": {"max_length": 200}, **sections,
    })  # fmt: skip
    assert isinstance(job, TrainingJob)
    return job


def examine(tmp_path: Path, rows: list[Any], dataset: Any = None, **sections: Any) -> LintReport:
    return lint(job_of(tmp_path, rows, dataset, **sections), byte_tokenizer())


GOOD = [chat(f"Question {number}?", f"Answer {number}.") for number in range(5)]

BAD: list[tuple[str, Any, str | None]] = [
    ("empty_answer", chat("Hi?", " "), "drop_rows"),
    ("no_answer", {"messages": [{"role": "user", "content": "Hi?"}]}, "drop_rows"),
    ("unknown_role", {"messages": [{"role": "elf", "content": "Hi?"}]}, "drop_rows"),
    ("null_content", chat(None, "Hello."), "drop_rows"),
    ("wrong_type", chat(True, "Hello."), "drop_rows"),
    ("truncated", chat("Hi?", "long " * 50), "drop_rows"),
    ("nothing_trained", chat("long " * 50, "Hello."), "drop_rows"),
    ("duplicates", GOOD[0], "deduplicate"),
    ("control_tokens", chat("Hi?", "Hello.<|im_end|> More."), "strip_control_tokens"),
    ("encoding_damage", chat("CafÃ©?", "Hello."), "repair_encoding"),
    ("hidden_characters", chat("Hi \u202egnp.exe", "Hello."), "drop_rows"),
    ("placeholders", chat("Dear {{name}}", "Hello."), "fill_placeholders"),
    ("role_order", {"messages": [{"role": "assistant", "content": "Hi."}, *GOOD[1]["messages"]]},
     "drop_rows"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "row", "fix"), BAD)
def test_each_problem_is_found_in_its_row(
    tmp_path: Path, code: str, row: Any, fix: str | None
) -> None:
    report = examine(tmp_path, [*GOOD, row])
    finding = next(finding for finding in report.findings if finding.code == code)
    assert (finding.count, finding.rows, finding.fix) == (1, [5], fix)
    assert "1 row" in finding.message and "{" not in finding.message.replace("{{name}}", "")
    assert report.rows == 6


def test_bad_lines_end_the_reading_unless_the_job_leaves_them_out(tmp_path: Path) -> None:
    job = job_of(tmp_path, GOOD)
    data = tmp_path / "rows.jsonl"
    data.write_text(data.read_text("utf-8").replace("\n", "\n{oops\n", 1), encoding="utf-8")
    for use in (lint, training_rows):
        with pytest.raises(UserError, match="line 2: not valid JSON") as bad:
            use(job, byte_tokenizer())
        assert "skip_bad_lines" in bad.value.remedy
    job = job_of(tmp_path, GOOD, {"skip_bad_lines": True})
    data.write_text(data.read_text("utf-8").replace("\n", "\n{oops\n", 1), encoding="utf-8")
    said = "rows.jsonl: 1 line(s) are no JSON objects and were left out (first is line 2)."
    report = lint(job, byte_tokenizer())
    assert (report.rows, report.notices) == (5, [said])
    shown = preview(job, byte_tokenizer(), 5)
    assert (len(shown["rows"]), shown["notices"]) == (5, [said])
    prepared = training_rows(job, byte_tokenizer())
    assert len(prepared.train) == 5
    ((code, template, params),) = prepared.warnings
    assert (code, template.format(**params)) == ("bad_lines_left_out", said)


def test_clean_data_has_no_findings(tmp_path: Path) -> None:
    assert examine(tmp_path, GOOD).findings == []


@pytest.mark.parametrize(("code", "row", "fix"), [case for case in BAD if case[2] == "drop_rows"])
def test_dropping_the_rows_of_a_finding_leaves_it_out(
    tmp_path: Path, code: str, row: Any, fix: str | None
) -> None:
    fixes = [{"code": "drop_rows", "finding": code}]
    report = examine(tmp_path, [*GOOD, row], {"fixes": fixes})
    assert code not in [finding.code for finding in report.findings]
    assert report.rows == 5


@pytest.mark.parametrize(
    ("fix", "row", "expected"),
    [
        ({"code": "strip_control_tokens"}, chat("Hi?", "A<|im_<|im_end|>end|>B"), "AB"),
        ({"code": "repair_encoding"}, chat("Hi?", "CafÃ© â€œokâ€\x9d"), "Café “ok”"),
        ({"code": "fill_placeholders", "values": {"name": "Ada"}}, chat("Hi?", "I am {{ name }}"),
         "I am Ada"),
    ],
)  # fmt: skip
def test_fixes_mend_the_text_and_not_the_file(
    tmp_path: Path, fix: Any, row: Any, expected: str
) -> None:
    job = job_of(tmp_path, [row], {"fixes": [fix]})
    before = (tmp_path / "rows.jsonl").read_bytes()
    (shown,) = preview(job, byte_tokenizer(), 1)["rows"]
    assert f"assistant\n{expected}<|im_end|>" in shown["text"]
    assert lint(job, byte_tokenizer()).findings == []
    assert (tmp_path / "rows.jsonl").read_bytes() == before


def test_a_system_prompt_is_set_where_there_is_none(tmp_path: Path) -> None:
    fixes = [{"code": "set_system_prompt", "text": "Be kind."}]
    (shown,) = preview(job_of(tmp_path, GOOD[:1], {"fixes": fixes}), byte_tokenizer(), 1)["rows"]
    assert shown["text"].startswith("<|im_start|>system\nBe kind.<|im_end|>")


def test_rows_listed_in_a_fix_are_dropped_and_numbers_stay(tmp_path: Path) -> None:
    fixes = [{"code": "drop_rows", "rows": [0, 2]}]
    shown = preview(job_of(tmp_path, GOOD, {"fixes": fixes}), byte_tokenizer(), 9)["rows"]
    assert [row["index"] for row in shown] == [1, 3, 4]


def test_deduplicating_keeps_the_first(tmp_path: Path) -> None:
    job = job_of(tmp_path, [*GOOD, *GOOD], {"fixes": [{"code": "deduplicate"}]})
    assert lint(job, byte_tokenizer()).rows == 5
    assert len(training_rows(job, byte_tokenizer()).train) == 5


def test_a_template_that_adds_a_system_prompt_is_told(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "Always answer as a pirate would. " + tokenizer.chat_template
    report = lint(job_of(tmp_path, GOOD), tokenizer)
    assert [finding.code for finding in report.findings] == ["own_system_prompt"]
    assert "as a pirate would" in report.findings[0].message


def test_an_answer_without_its_end_token_is_told(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_end|>", "")
    (finding,) = lint(job_of(tmp_path, GOOD), tokenizer).findings
    assert (finding.code, finding.count) == ("no_end_token", 5)


def test_mixed_types_of_a_column_are_told(tmp_path: Path) -> None:
    rows = [{"prompt": f"Question {n}", "completion": f"Answer {n}"} for n in range(5)]
    report = examine(tmp_path, [*rows, {"prompt": "Six", "completion": 6}])
    (finding,) = report.findings
    assert (finding.code, finding.rows) == ("mixed_types", [5])
    assert "completion: int beside str" in finding.message


def test_near_duplicates_are_found_on_request(tmp_path: Path) -> None:
    long = " ".join(f"word{number}" for number in range(60))
    rows = [chat("Hi?", long), chat("Hi?", long + " more"), *GOOD]
    job = job_of(tmp_path, rows, training={"max_length": 2000})
    assert lint(job, byte_tokenizer()).findings == []
    (finding,) = lint(job, byte_tokenizer(), near_duplicates=True).findings
    assert (finding.code, finding.rows) == ("near_duplicates", [1])


def test_overlap_with_a_test_file_is_found_and_can_be_dropped(tmp_path: Path) -> None:
    test = tmp_path / "test.jsonl"
    test.write_text("\n".join(map(json.dumps, [GOOD[1], chat("New?", "Yes.")])), encoding="utf-8")
    job = job_of(tmp_path, GOOD, {"held_out_path": str(test)})
    (finding,) = lint(job, byte_tokenizer()).findings
    assert (finding.code, finding.rows, finding.fix) == ("overlap", [0], "drop_overlap")
    assert len(training_rows(job, byte_tokenizer()).held_out) == 2
    fixed = job_of(
        tmp_path, GOOD, {"held_out_path": str(test), "fixes": [{"code": "drop_overlap"}]}
    )
    assert len(training_rows(fixed, byte_tokenizer()).held_out) == 1


def test_lint_tells_its_progress_and_can_be_stopped(tmp_path: Path) -> None:
    job = job_of(tmp_path, [chat(f"Q {n}", "A") for n in range(2500)])
    told: list[int] = []
    lint(job, byte_tokenizer(), on_progress=told.append)
    assert told == [1000, 2000]
    with pytest.raises(StopRequested):
        lint(job, byte_tokenizer(), should_stop=lambda: True)


def test_every_fix_that_lint_names_exists() -> None:
    known = {fix.model_fields["code"].default for fix in Fix.__origin__.__args__}
    assert {kind.fix for kind in KINDS.values()} - {None} <= known


# --- the rows of a run -------------------------------------------------------------------


def test_long_plain_text_is_cut_to_pieces_and_none_is_lost(tmp_path: Path) -> None:
    text = "".join(chr(97 + number % 26) for number in range(450))
    job = job_of(tmp_path, [{"text": text}], {"chunk_length": 100})
    rows = training_rows(job, byte_tokenizer()).train
    assert [len(ids) for ids in rows["input_ids"]].count(100) == 4 and len(rows) == 5
    shown = preview(job, byte_tokenizer(), 9)["rows"]
    assert "".join(t["text"] for row in shown for t in row["tokens"]) == text + "<|im_end|>"
    assert [(row["index"], row["piece"]) for row in shown] == [(0, n) for n in range(5)]


def test_held_out_rows_share_no_duplicate_with_the_rest(tmp_path: Path) -> None:
    rows = [chat(f"Q {number % 30}", "A") for number in range(100)]
    job = job_of(tmp_path, rows, evaluation={"held_out_fraction": 0.3})
    found = training_rows(job, byte_tokenizer())
    train = {tuple(ids) for ids in found.train["input_ids"]}
    test = {tuple(ids) for ids in found.held_out["input_ids"]}
    assert train and test and not train & test
    assert len(found.train) + len(found.held_out) == 100


def test_sources_are_mixed_by_weight_each_with_its_own_mapping(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        "\n".join(json.dumps(chat(f"a{n}", "from a")) for n in range(10)), encoding="utf-8"
    )
    (tmp_path / "b.csv").write_text(
        "ask,say\n" + "\n".join(f"b{n},from b" for n in range(10)), encoding="utf-8"
    )
    job = parse_job({"model": {"id": "x"}, "dataset": {"sources": [
        {"path": str(tmp_path / "a.jsonl"), "weight": 3},
        {"path": str(tmp_path / "b.csv"), "weight": 1,
         "mapping": {"columns": {"ask": "user", "say": "assistant"}}},
    ]}})  # fmt: skip
    assert isinstance(job, TrainingJob)
    tokenizer = byte_tokenizer()
    texts = [tokenizer.decode(ids) for ids in training_rows(job, tokenizer).train["input_ids"]]
    assert sum("from a" in text for text in texts) == 30
    assert sum("from b" in text for text in texts) == 10
    assert {row["index"] for row in preview(job, tokenizer, 99)["rows"]} == set(range(20))


@pytest.mark.parametrize("rows", [[BAD[0][1]], [BAD[6][1]], [
    {"messages": [{"role": "user", "content": "Hi?"},
                  {"role": "assistant", "content": "Hello.", "weight": 0}]}]])  # fmt: skip
def test_a_run_that_would_learn_nothing_is_refused(tmp_path: Path, rows: list[Any]) -> None:
    with pytest.raises(UserError, match=r"No row of rows\.jsonl can be trained on") as caught:
        training_rows(job_of(tmp_path, rows), byte_tokenizer())
    assert caught.value.code == "no_usable_rows"


def test_labels_are_the_tokens_where_learned_and_the_share_is_right(tmp_path: Path) -> None:
    found = training_rows(job_of(tmp_path, GOOD), byte_tokenizer())
    tokens = learned = 0
    for ids, labels in zip(found.train["input_ids"], found.train["labels"], strict=True):
        assert all(label in (-100, token) for token, label in zip(ids, labels, strict=True))
        tokens += len(ids)
        learned += sum(label != -100 for label in labels)
    assert found.trained_share == pytest.approx(learned / tokens)
    assert 0 < found.trained_share < 1


def test_bad_labels_are_left_out_of_the_run_with_a_notice(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q {n}", "completion": "A", "label": n % 2 == 0} for n in range(10)]
    found = training_rows(job_of(tmp_path, rows), byte_tokenizer())
    assert len(found.train) == 5
    said = [template.format(**params) for _, template, params in found.warnings]
    assert "5 rows are labelled as bad answers and left out." in said


def test_a_model_without_a_template_takes_a_standard_one(tmp_path: Path) -> None:
    plain = preview(job_of(tmp_path, GOOD[:1]), byte_tokenizer(None), 1)
    assert plain["chat_template"] == "plain" and "no chat template" in plain["notices"][0]
    assert plain["rows"][0]["text"].startswith("User: Question 0?\nAssistant: Answer 0.")
    job = job_of(tmp_path, GOOD[:1], {"chat_template": "alpaca"})
    alpaca = preview(job, byte_tokenizer(), 1)
    assert alpaca["rows"][0]["text"].startswith("### Instruction:\nQuestion 0?")


def test_a_hostile_template_is_refused_before_it_is_used(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for a in range(99999) %}{{ 'x' * 100000 }}{% endfor %}"
    with pytest.raises(UserError, match="does not take a question") as caught:
        training_rows(job_of(tmp_path, GOOD), tokenizer)
    assert "standard chat template" in caught.value.remedy


def test_half_characters_anywhere_in_a_row_break_nothing(tmp_path: Path) -> None:
    half = "x \ud83d"
    call = {"function": {"name": "look", "arguments": {half: half}}}
    answer = {"role": "assistant", "content": half, "reasoning": half, "tool_calls": [call]}
    report = examine(tmp_path, [{"messages": [{"role": "user", "content": half}, answer]}])
    assert report.numbers.rows == 1
    assert [finding.code for finding in report.findings] == ["encoding_damage"]


# --- numbers and repairs -----------------------------------------------------------------


@given(st.lists(st.integers(1, 500), min_size=1, max_size=80), st.integers(1, 600))
def test_numbers_agree_with_counting_by_hand(lengths: list[int], limit: int) -> None:
    numbers = Numbers()
    for length in lengths:
        numbers.add(length, min(length, limit), 1)
    rows, tokens = numbers.cut_at(limit)
    assert rows == pytest.approx(sum(n > limit for n in lengths) / len(lengths))
    assert tokens == pytest.approx(sum(max(0, n - limit) for n in lengths) / sum(lengths))
    histogram = numbers.histogram(10)
    assert sum(count for _, _, count in histogram) == len(lengths)
    for shortest, longest, count in histogram:
        assert count == sum(shortest <= n <= longest for n in lengths)
    assert numbers.percentile(0.5) == sorted(lengths)[(len(lengths) - 1) // 2]
    assert numbers.percentile(1.0) == max(lengths)


@given(st.text(alphabet=st.characters(min_codepoint=0xC0, max_codepoint=0x2FF), min_size=1))
def test_repairing_undoes_damage(text: str) -> None:
    assert repair_encoding(text.encode("utf-8").decode("latin-1")) == text


@pytest.mark.parametrize("text", ["naïve café", "½ Ω", "東京", "Ärger über Öl", "“quoted” – 5 €"])
def test_repairing_leaves_sound_text_alone(text: str) -> None:
    assert repair_encoding(text) == text
