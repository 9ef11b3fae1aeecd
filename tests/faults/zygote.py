"""A process that has imported the trainer once and forks a worker from itself at each command.

Importing takes ten seconds, a fork a millisecond, so that hundreds of faults can be tried. Reads
JSON lines: `{"fork": source}` answers `{"pid": …}`, `{"wait": pid}` answers `{"exit": …}`, negative
for the number of the signal that ended it.
"""

from __future__ import annotations

import json
import os
import sys
import traceback


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    from training_backend.lifecycle import child_process

    child_process.set_environment()
    import training_backend.export.folder
    import training_backend.probe
    import training_backend.train  # noqa: F401

    print(json.dumps({"ready": os.getpid()}), file=answers)
    for line in sys.stdin:
        command = json.loads(line)
        if "wait" in command:
            _, status = os.waitpid(command["wait"], 0)
            answer = {"exit": os.waitstatus_to_exitcode(status)}
        else:
            pid = os.fork()
            if pid == 0:
                os._exit(_run(command["fork"]))
            answer = {"pid": pid}
        print(json.dumps(answer), file=answers)


def _run(source: str) -> int:
    """The exit code that the source leaves in `code`."""
    try:
        scope: dict[str, object] = {"code": 0}
        exec(source, scope)
        return int(str(scope["code"]))
    except BaseException:
        traceback.print_exc()
        return 99


if __name__ == "__main__":
    main()
