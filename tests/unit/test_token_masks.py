"""Tokens and masks with tokenizers of every make."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.byte_tokenizer import byte_tokenizer
from training_backend.data.formatting import IGNORED, Encoded, Formatter
from training_backend.data.mapping import Conversation, RowProblem, to_conversation
from training_backend.errors import UserError

TEMPLATES = Path(__file__).parents[1] / "assets" / "chat_templates"
CHAT = to_conversation({"messages": [
    {"role": "user", "content": "Where is Rome? 🙂"},
    {"role": "assistant", "content": "In Italy, café 🙂 ok"},
    {"role": "user", "content": "Sure?"},
    {"role": "assistant", "content": "Yes."},
]}, "messages")  # fmt: skip


def sentencepiece_like(kind: str, family: str) -> Any:
    """A tokenizer in the manner of Llama 2 or Gemma: spaces are tokens, one may be put first."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁",
              *map(chr, range(33, 127)), "▁I", "▁In", "In", "▁Y", "▁Ye", "Ye"]  # fmt: skip
    merges = [("▁", "I"), ("▁I", "n"), ("I", "n"), ("▁", "Y"), ("Y", "e"), ("▁Y", "e")]
    core = Tokenizer(
        models.BPE({p: n for n, p in enumerate(dict.fromkeys(pieces))}, merges,
                   byte_fallback=True, unk_token="<unk>")
    )  # fmt: skip
    if kind == "normalizer":
        core.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=kind)
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core)
    tokenizer.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    tokens = ["<|im_start|>", "<|im_end|>", "[INST]", "[/INST]", "<|user|>", "<|end|>"]
    tokenizer.add_tokens(tokens, special_tokens=True)
    tokenizer.chat_template = (TEMPLATES / f"{family}.jinja").read_text(encoding="utf-8")
    return tokenizer


def encode(formatter: Formatter, conversation: Conversation) -> Encoded:
    (result,) = formatter.encode([conversation])
    assert not isinstance(result, RowProblem)
    return result[0]


@pytest.mark.parametrize("kind", ["normalizer", "first", "always", "never"])
@pytest.mark.parametrize(
    ("family", "end", "last"),
    [("mistral", "</s>", "</s>"), ("chatml", "<|im_end|>", "<|im_end|>"),
     ("phi", "<|end|>", "<|end|>\n</s>")],
)  # fmt: skip
def test_masks_fit_tokenizers_that_put_spaces_first(
    kind: str, family: str, end: str, last: str
) -> None:
    formatter = Formatter(sentencepiece_like(kind, family), 1000)
    encoded = encode(formatter, CHAT)
    texts = formatter.token_texts(encoded)
    assert "".join(texts) == encoded.text
    learned = ["".join(texts[begin:end_]).strip() for begin, end_ in encoded.trained]
    assert learned == [f"In Italy, café 🙂 ok{end}", f"Yes.{last}"]


@pytest.mark.parametrize("loss_on", ["assistant", "last_answer", "everything"])
@pytest.mark.parametrize("family", ["mistral", "chatml", "phi"])
def test_the_last_question_and_its_answer_are_found_whatever_is_learned(
    family: str, loss_on: Any
) -> None:
    tokenizer = sentencepiece_like("never", family)
    encoded = encode(Formatter(tokenizer, 1000, loss_on, exchanges=True), CHAT)
    assert encoded.exchange is not None
    (asked, asked_end), (answer, end) = encoded.exchange
    ids = encoded.input_ids
    assert tokenizer.decode(ids[asked:asked_end]) == "Sure?"
    assert tokenizer.decode(ids[answer:end], skip_special_tokens=True).strip() == "Yes."
    assert ids[end - 1] in Formatter(tokenizer, 1000).special_ids
    # What stands before is what the template gives to a model that is to answer.
    prompt = tokenizer.apply_chat_template(
        CHAT.messages[:-1], add_generation_prompt=True, tokenize=False
    )
    assert tokenizer.decode(ids[:answer]) == prompt


def test_an_answer_that_is_cut_and_a_plain_text_are_no_exchange() -> None:
    whole = encode(Formatter(byte_tokenizer(), 1000, exchanges=True), CHAT)
    assert whole.exchange is not None
    end = whole.exchange[1][1]
    assert encode(Formatter(byte_tokenizer(), end, exchanges=True), CHAT).exchange is not None
    assert encode(Formatter(byte_tokenizer(), end - 1, exchanges=True), CHAT).exchange is None
    text = to_conversation({"text": "Plain."}, "text")
    assert encode(Formatter(byte_tokenizer(), 1000, exchanges=True), text).exchange is None
    assert encode(Formatter(byte_tokenizer(), 1000), CHAT).exchange is None


def test_labels_repeat_the_learned_tokens_only() -> None:
    encoded = encode(Formatter(byte_tokenizer(), 1000), CHAT)
    assert len(encoded.labels) == len(encoded.input_ids) == encoded.n_full
    assert sum(label != IGNORED for label in encoded.labels) == encoded.n_trained
    for token, label in zip(encoded.input_ids, encoded.labels, strict=True):
        assert label in (token, IGNORED)


def test_one_by_one_and_many_at_once_are_the_same() -> None:
    conversations = [CHAT, to_conversation({"text": "Plain."}, "text"), Conversation(
        [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Hello."}]
    )]  # fmt: skip
    together = Formatter(byte_tokenizer(), 100).encode(conversations)
    alone = [Formatter(byte_tokenizer(), 100).encode([c])[0] for c in conversations]
    assert together == alone


def test_rows_cut_before_their_answer_are_refused() -> None:
    (problem,) = Formatter(byte_tokenizer(), 20).encode([CHAT])
    assert isinstance(problem, RowProblem) and "first 20 tokens" in str(problem)


def test_a_plain_text_ends_with_the_end_token_and_is_learned_whole() -> None:
    formatter = Formatter(byte_tokenizer(), 1000)
    encoded = encode(formatter, to_conversation({"text": "Once 🙂"}, "text"))
    assert encoded.labels == encoded.input_ids
    assert encoded.input_ids[-1] == formatter.tokenizer.eos_token_id
    assert "".join(formatter.token_texts(encoded)) == "Once 🙂<|im_end|>"


def test_a_tokenizer_without_offsets_is_refused() -> None:
    tokenizer = byte_tokenizer()

    class Slow:
        is_fast = False
        chat_template = tokenizer.chat_template

    with pytest.raises(UserError, match="which characters a token stands for"):
        Formatter(Slow(), 100)
