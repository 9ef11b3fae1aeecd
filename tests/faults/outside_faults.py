"""What lies outside of a run: its model, its data, names, the computer's language."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from tests.faults.disk_faults import NotHere
from tests.faults.lab import Lab, expect, sentence
from tests.faults.window_faults import PRESS, open_window
from training_backend import runs
from training_backend.job import parse_job
from training_backend.lifecycle import inputs
from training_backend.protocol import RunCompleted, RunFailed
from training_backend.runs import Run


def base_model_deleted(lab: Lab) -> str:
    return _gone_for_a_while(lab, lab.model)


def data_deleted(lab: Lab) -> str:
    return _gone_for_a_while(lab, lab.data)


def _gone_for_a_while(lab: Lab, path: Path) -> str:
    run = lab.killed(7)
    aside = path.rename(lab.folder / "aside")
    try:
        end = lab.start(run).wait()
        expect(isinstance(end, RunFailed), f"ended as {end}")
    finally:
        aside.rename(path)
    lab.nothing_lost(run)
    return sentence(end)


def data_changed(lab: Lab) -> str:
    """It says so, goes on with the old data when that is back, and with the new when told to."""
    run, other = lab.killed(7), lab.killed(7)
    before = lab.data.read_text(encoding="utf-8")
    try:
        lab.data.write_text(before.replace("What is 3", "What was 3"), encoding="utf-8")
        end = lab.start(run).wait()
        expect(isinstance(end, RunFailed) and end.code == "inputs_changed", f"ended as {end}")
        expect(inputs.waits_for_consent(run), "nobody is asked")
        inputs.accept_changes(other)
        accepted = lab.start(other).wait()
        expect(isinstance(accepted, RunCompleted), f"ended as {accepted}")
    finally:
        lab.data.write_text(before, encoding="utf-8")
    lab.nothing_lost(run)
    return sentence(end)


def base_model_changed(lab: Lab) -> str:
    run = lab.killed(7)
    weights = lab.model / "model.safetensors"
    before = weights.read_bytes()
    try:
        weights.write_bytes(before[:-2] + bytes([before[-2] ^ 1, before[-1]]))
        end = lab.start(run).wait()
        expect(isinstance(end, RunFailed) and end.code == "inputs_changed", f"ended as {end}")
    finally:
        weights.write_bytes(before)
    lab.nothing_lost(run)
    return sentence(end)


def spaces_and_emoji_in_paths(lab: Lab) -> str:
    """In the model's folder, the data's name and the run's own folder."""
    folder = lab.folder / "Größe 🦙 & 'so' \"on\""
    folder.mkdir()
    shutil.copytree(lab.model, folder / "my model 1.0 🦙")
    shutil.copyfile(lab.data, folder / "rows %20 #1.jsonl")
    document = lab.job(
        model={"id": str(folder / "my model 1.0 🦙")},
        dataset={"path": str(folder / "rows %20 #1.jsonl")},
    )
    made = runs.create(parse_job(document))
    run = Run(folder / "a run 🏃")
    shutil.move(made.folder, run.folder)
    attempt = lab.start(run)
    attempt.until_step(5)
    attempt.signal(signal.SIGKILL)
    attempt.wait()
    end = lab.start(run).wait()
    expect(isinstance(end, RunCompleted), f"ended as {end}")
    return sentence(end)


def decimal_comma(lab: Lab) -> str:
    """The C library's own numbers are written with a comma: in the worker, and in the window."""
    german = _german(lab.folder / "locales")
    setup = f"import os, locale\nos.environ.update({german!r})\nlocale.setlocale(locale.LC_ALL, '')"
    run = lab.create()
    attempt = lab.start(run, f"{setup}\nassert locale.localeconv()['decimal_point'] == ','")
    attempt.wait()
    lab.equals_undisturbed(run)
    with open_window(lab, **german) as window:
        shown = window.train(lab)
        point = window.do("import locale\nanswer = locale.localeconv()['decimal_point']")
        expect(point == ".", f"the window's C library writes {point!r}")
        language = window.do("from PySide6.QtCore import QLocale\nanswer = QLocale().name()")
        window.do(PRESS.format(name="stopButton"))
        window.until("answer = window.training.is_busy()", False)
        window.do("window.close()")
        expect(window.end() == 0, "the window ended with an error")
    lab.nothing_lost(shown)
    return f"{sentence(run.events()[-1])} ({language})"


def _german(folder: Path) -> dict[str, str]:
    """The environment of somebody in Germany, made here where it is not installed."""
    name = "de_DE.UTF-8"
    if shutil.which("localedef") is None:
        raise NotHere("localedef is not installed")
    folder.mkdir(exist_ok=True)
    made = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "UTF-8", folder / name], capture_output=True, text=True
    )
    if made.returncode:
        raise NotHere(f"a German locale cannot be made: {made.stderr.strip()}")
    return {"LOCPATH": str(folder), "LC_ALL": name, "LANG": name}


def no_home_to_write_to(lab: Lab) -> str:
    """What is said when Lorasmith's own folder cannot be made."""
    from training_backend.errors import UserError

    before = os.environ["LORASMITH_HOME"]
    os.environ["LORASMITH_HOME"] = str(lab.data / "below a file")
    try:
        runs.runs_dir()
    except UserError as error:
        return str(error)
    finally:
        os.environ["LORASMITH_HOME"] = before
    raise AssertionError("it was made")
