"""Commands that mean in a shell what they say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from training_backend.export import shell_words

HARD = [
    "plain", "with space", "", "it's", 'say "x"', "$HOME `id` $(id)", "a;b&c|d>e<f", "*?[x]~",
    "\\back\\slash", "C:\\Users\\Ada Lovelace\\x", "new\nline", "größe", "-m:x", "-v.5", "--x=y",
    "name=/a b/c", "{a,b}", "@args", "#no", "%PATH%", "‘quoted’", "!x!",
]  # fmt: skip


@pytest.mark.skipif(os.name == "nt" or shutil.which("sh") is None, reason="needs a POSIX shell")
def test_a_posix_shell_gives_a_program_the_very_words() -> None:
    command = shell_words.posix(["printf", r"%s\0", *HARD])
    said = subprocess.run(["sh", "-c", command], capture_output=True, check=True).stdout
    assert said.decode().split("\0")[:-1] == HARD


def test_powershell_takes_a_quotation_for_its_text_alone() -> None:
    """Inside of single quotation marks nothing means anything but such a mark, which is doubled."""
    for word in HARD:
        written = shell_words.powershell([word])
        if written != word:
            assert written[0] == written[-1] == "'"
            inside = written[1:-1]
            assert re.sub("(['‘’‚‛])\\1", r"\1", inside) == word  # noqa: RUF001
            assert not re.sub("(['‘’‚‛])\\1", "", inside).count("'")  # noqa: RUF001


def test_words_that_no_shell_reads_anything_into_stay_bare() -> None:
    words = ["llama-cli", "-m", "C:\\models\\a_b-Q8_0.gguf", "--port", "8080", "name=C:\\x"]
    assert shell_words.powershell(words) == " ".join(words)
    bare = {word for word in HARD if shell_words.powershell([word]) == word}
    assert bare == {"plain", "\\back\\slash"}
