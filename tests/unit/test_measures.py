"""How near an answer comes to the data's own, in any script."""

from __future__ import annotations

import pytest

from training_backend.training.measures import summary, words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Der Mann, „Größe“!", ["der", "mann", "grösse"]),
        ("Привет, мир…", ["привет", "мир"]),
        ("今天 天气很好。", ["今", "天", "天", "气", "很", "好"]),
        ("東京タワー", ["東", "京", "タ", "ワ", "ー"]),
        ("مرحبا، بالعالم؟", ["مرحبا", "بالعالم"]),
        ("हिन्दी की।", ["हिन्दी", "की"]),
        ("한국어 문장.", ["한국어", "문장"]),
        ("-5, 3.14 and 2020-2021 (3d)", ["-5", "3.14", "and", "2020", "2021", "3d"]),
        ("**Yes** `it` is: 4 €", ["yes", "it", "is", "4", "€"]),
        ("ｆｕｌｌ　ｗｉｄｔｈ", ["full", "width"]),  # noqa: RUF001
        ("", []),
    ],
)
def test_words_of_every_script_are_told_apart(text: str, found: list[str]) -> None:
    assert words(text) == found


def test_a_summary_tells_means_and_how_sure_their_difference_is() -> None:
    def row(value: float) -> dict[str, float]:
        return {"exact_match": value, "f1": value, "rouge_l": value}

    before = [row(0.0)] * 10
    after = [row(value) for value in (1, 0, 1, 0, 1, 0, 1, 0, 1, 0)]
    exact = summary(before, after)[0]  # type: ignore[arg-type]
    assert (exact.name, exact.before, exact.after) == ("exact_match", 0.0, 0.5)
    # 1.96 standard errors of ten values 0 or 1 whose mean is a half.
    assert exact.margin == pytest.approx(1.96 * (2.5 / 9) ** 0.5 / 10**0.5)
    assert summary(before[:9], after[:9])[0].margin is None  # type: ignore[arg-type]
    alone = summary(None, after)[1]  # type: ignore[arg-type]
    assert (alone.name, alone.before, alone.after, alone.margin) == ("f1", None, 0.5, None)
