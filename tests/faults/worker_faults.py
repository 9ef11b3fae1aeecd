"""A worker that is ended, breaks, hangs or is asked to stop at the wrong moment."""

from __future__ import annotations

import random
import signal
import time

from tests.faults.lab import Lab, expect, newest_sound, sentence
from training_backend.computer import ram
from training_backend.lifecycle import launch
from training_backend.protocol import (
    EvaluationLogged,
    MetricsLogged,
    PhaseChanged,
    RunFailed,
    RunInterrupted,
    RunStopped,
)


def killed_at_20_random_steps(lab: Lab) -> str:
    """One run of 80 steps, killed again and again until it has come to its end."""
    draw = random.Random(22)
    run = lab.create(training={"max_steps": 80, "save_steps": 2})
    told = ""
    for _ in range(20):
        attempt = lab.start(run)
        attempt.until_step(newest_sound(run) + draw.randint(2, 5))
        time.sleep(draw.random() / 50)
        attempt.signal(signal.SIGKILL)
        end = attempt.wait()
        if not isinstance(end, RunInterrupted):
            break  # it was faster
        told = sentence(end)
    lab.nothing_lost(run)
    return told


def segmentation_fault(lab: Lab) -> str:
    setup = lab.at_step(5, "import ctypes; ctypes.string_at(0)")
    run, end = lab.train(setup)
    expect(isinstance(end, RunInterrupted) and "SIGSEGV" in end.detail, f"ended as {end}")
    expect("Fatal Python error" in run.log_tail(), "no evidence in the log")
    lab.nothing_lost(run)
    return sentence(end)


def ended_by_the_system_for_memory(lab: Lab) -> str:
    """Simulated: SIGKILL, and one more in the system's count of those it ended for memory."""
    count = ram.oom_kills
    ram.oom_kills = lambda: (count() or 0) + 1
    try:
        run = lab.killed(5)
    finally:
        ram.oom_kills = count
    told = sentence(run.events()[-1])
    expect("ran out of memory" in told, "memory is not named as a cause")
    lab.nothing_lost(run)
    return told


def exit_in_the_midst(lab: Lab) -> str:
    run, end = lab.train(lab.at_step(5, "import os; os._exit(7)"))
    expect(isinstance(end, RunInterrupted) and "7" in end.detail, f"ended as {end}")
    lab.nothing_lost(run)
    return sentence(end)


def hang(lab: Lab) -> str:
    """SIGSTOP: nothing runs any more. Whoever ends it by force keeps the checkpoints."""
    run = lab.create()
    attempt = lab.halted(run, 5)
    expect(run.is_alive(), "a worker that hangs counts as gone")
    launch.kill(run)
    end = attempt.wait()
    expect(isinstance(end, RunInterrupted) and "force" in end.detail, f"ended as {end}")
    lab.nothing_lost(run)
    return sentence(end)


def told_to_end_by_the_system(lab: Lab) -> str:
    """SIGTERM, as at the end of a session: it saves and stops."""
    run = lab.create()
    attempt = lab.halted(run, 5)
    attempt.signal(signal.SIGTERM)
    attempt.signal(signal.SIGCONT)
    end = attempt.wait()
    expect(isinstance(end, RunStopped) and end.checkpoint is not None, f"ended as {end}")
    expect(newest_sound(run) == end.step, "it did not save where it stopped")
    lab.nothing_lost(run)
    return sentence(end)


def told_twice_to_end(lab: Lab) -> str:
    """The second SIGTERM does not wait for a step that takes ten minutes."""
    run = lab.create()
    attempt = lab.start(run, lab.at_step(5, "import time; print('asleep'); time.sleep(600)"))
    attempt.until(lambda _: "asleep" in run.log_tail())
    began = time.monotonic()
    attempt.signal(signal.SIGTERM)
    while not run.requested("stop") and time.monotonic() - began < 200:
        time.sleep(0.01)
    attempt.signal(signal.SIGTERM)
    end = attempt.wait()
    expect(isinstance(end, RunInterrupted) and "SIGTERM" in end.detail, f"ended as {end}")
    expect(time.monotonic() - began < 300, "it waited for the step")
    run.clear_requests()  # as whoever starts a worker does
    lab.nothing_lost(run)
    return sentence(end)


def computer_asleep(lab: Lab) -> str:
    """Everything stands still for three seconds (SIGSTOP, SIGCONT), then goes on."""
    run = lab.create()
    attempt = lab.halted(run, 5)
    time.sleep(3)
    expect(run.is_alive(), "a worker that sleeps counts as gone")
    attempt.signal(signal.SIGCONT)
    end = attempt.wait()
    events = run.events()
    elapsed = [e.elapsed for e in events]
    expect(elapsed == sorted(elapsed), "durations run backwards")
    left = [e.seconds_left for e in events if isinstance(e, MetricsLogged)]
    expect(all(s is None or 0 <= s < 600 for s in left), f"an absurd time left: {left}")
    lab.equals_undisturbed(run)
    return sentence(end)


def loss_that_is_no_number(lab: Lab) -> str:
    """A weight of the adapter becomes NaN: the checkpoint before is kept."""
    plant = "next(p for p in model.parameters() if p.requires_grad).data[0, 0] = float('nan')"
    return _fails(lab, plant, "loss_not_finite")


def card_out_of_memory(lab: Lab) -> str:
    """PyTorch's own error, raised in a real step."""
    return _fails(
        lab, "import torch; raise torch.OutOfMemoryError('CUDA out of memory.')", "out_of_vram"
    )


def card_out_of_memory_in_a_step(lab: Lab) -> str:
    """PyTorch's own error, raised in the backward pass of step 6."""
    return _out_of_memory_in_a_step(
        lab, "raise torch.OutOfMemoryError('CUDA out of memory.')", "out_of_vram"
    )


def computer_out_of_memory_in_a_step(lab: Lab) -> str:
    """The backward pass of step 6 asks for a petabyte, and is refused."""
    return _out_of_memory_in_a_step(lab, "torch.empty(2**50, dtype=torch.uint8)", "out_of_ram")


def _out_of_memory_in_a_step(lab: Lab, act: str, code: str) -> str:
    """The step before is saved, whenever the checkpoint before was."""
    setup = f"""
import torch
from transformers import LlamaModel
_forward, calls = LlamaModel.forward, 0
def run_out(gradient):
    {act}
def forward(self, *a, **k):
    global calls
    calls += self.training
    result = _forward(self, *a, **k)
    if self.training and calls == 6:
        result.last_hidden_state.register_hook(run_out)
    return result
LlamaModel.forward = forward
"""
    run, end = lab.train(setup)
    expect(isinstance(end, RunFailed) and end.code == code, f"ended as {end}")
    expect(newest_sound(run) == 5, f"saved was step {newest_sound(run)}")
    lab.nothing_lost(run)
    return sentence(end)


def computer_out_of_memory(lab: Lab) -> str:
    return _fails(lab, "raise MemoryError", "out_of_ram")


def error_of_the_card(lab: Lab) -> str:
    return _fails(lab, "raise RuntimeError('CUDA error: an illegal memory access')", "card_error")


def _fails(lab: Lab, plant: str, code: str) -> str:
    """In step 5; the newest checkpoint is the one before, of the test at step 4."""
    run, end = lab.train(lab.at_step(5, plant))
    expect(isinstance(end, RunFailed) and end.code == code, f"ended as {end}")
    expect(newest_sound(run) == 4, "the last sound checkpoint is not the newest")
    lab.nothing_lost(run)
    return sentence(end)


def stop_while_loading(lab: Lab) -> str:
    return _stopped_in(lab, "loading")


def stop_while_tokenising(lab: Lab) -> str:
    return _stopped_in(lab, "tokenising")


def _stopped_in(lab: Lab, phase: str) -> str:
    setup = f"""
from training_backend.worker import Reporter
_phase = Reporter.phase
def phase(self, phase, *a, **k):
    if phase == {phase!r}:
        self.run.request("stop")
    _phase(self, phase, *a, **k)
Reporter.phase = phase
"""
    run, end = lab.train(setup)
    expect(isinstance(end, RunStopped), f"ended as {end}")
    expect(not any(isinstance(e, MetricsLogged) for e in run.events()), "it trained all the same")
    lab.nothing_lost(run)
    return sentence(end)


def stop_while_saving(lab: Lab) -> str:
    setup = """
from training_backend.lifecycle import checkpoints
_commit = checkpoints.commit
def commit(*a):
    run.request("stop")
    return _commit(*a)
checkpoints.commit = commit
"""
    run, end = lab.train(setup)
    expect(isinstance(end, RunStopped) and end.checkpoint is not None, f"ended as {end}")
    lab.nothing_lost(run)
    return sentence(end)


def stop_while_testing(lab: Lab) -> str:
    setup = """
from training_backend.training.trainer_habits import TrainerHabits
_evaluate = TrainerHabits.evaluate
def evaluate(self, *a, **k):
    run.request("stop")
    return _evaluate(self, *a, **k)
TrainerHabits.evaluate = evaluate
"""
    run, end = lab.train(setup)
    expect(isinstance(end, RunStopped) and end.checkpoint is not None, f"ended as {end}")
    expect(any(isinstance(e, EvaluationLogged) for e in run.events()), "the test was cut off")
    lab.nothing_lost(run)
    return sentence(end)


def clock_set_back(lab: Lab) -> str:
    """By a day, in the midst: durations are measured on another clock."""
    setup = lab.at_step(5, "import time; _time = time.time; time.time = lambda: _time() - 86_400")
    run, end = lab.train(setup)
    events = run.events()
    expect([e.seq for e in events] == list(range(len(events))), "events out of order")
    elapsed = [e.elapsed for e in events]
    expect(elapsed == sorted(elapsed), "durations run backwards")
    left = [e.seconds_left for e in events if isinstance(e, MetricsLogged)]
    expect(all(s is None or 0 <= s < 3600 for s in left), "an absurd time left")
    expect(any(isinstance(e, PhaseChanged) for e in events), "no phases")
    lab.equals_undisturbed(run)
    return sentence(end)


def two_workers_for_one_run(lab: Lab) -> str:
    """The second one leaves it alone."""
    run = lab.create()
    first = lab.halted(run, 2)
    second = lab.start(run, "worker.LOCK_WAIT_SECONDS = 0.2")
    code = lab.ask({"wait": second.pid})["exit"]
    expect(code == 1, f"the second ended with {code}")
    first.signal(signal.SIGCONT)
    end = first.wait()
    lab.equals_undisturbed(run)
    return sentence(end)


def two_runs_on_one_card(lab: Lab) -> str:
    """The second waits until the first one's process is gone."""
    first_run, second_run = lab.create(), lab.create()
    first = lab.halted(first_run, 2)
    second = lab.start(second_run)
    second.until(lambda e: isinstance(e, PhaseChanged) and e.phase == "waiting")
    first.signal(signal.SIGKILL)
    first.wait()
    end = second.wait()
    lab.equals_undisturbed(second_run)
    lab.nothing_lost(first_run)
    return sentence(end)
