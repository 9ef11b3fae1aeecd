"""Look the lock up in the public list of known weaknesses, with pip-audit.

    .venv/bin/python packaging/audit.py

needs a network: pip-audit is fetched into a folder that goes away again, and asks PyPI about every
package of the lock, whatever system or Python it is for. Exit codes: 0 nothing is known of any of
them; 1 something is, and is printed; 2 they could not be looked up, all or some.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

TOOL = "pip-audit>=2.10,<3"
LOCKS = ("torch.txt", "runtime.txt", "dev.txt")
_PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)==([^\s;\\]+)", re.MULTILINE)


def main() -> int:
    """The exit code."""
    with tempfile.TemporaryDirectory(prefix="lorasmith-audit-") as folder:
        report, problem = _audit(Path(folder))
    if report is None:
        print(f"{problem} Check the network and try again.", file=sys.stderr)
        return 2
    lines, code = summary(report)
    print("\n".join(lines), file=sys.stderr if code == 2 else sys.stdout)
    return code


def pins() -> list[tuple[str, str]]:
    """Name and version of everything that the lock installs anywhere; some in two versions."""
    folder = Path(__file__).parent / "requirements"
    found = (_PIN.findall((folder / name).read_text(encoding="utf-8")) for name in LOCKS)
    return sorted({(name.lower(), version) for lock in found for name, version in lock})


def summary(report: Iterable[dict[str, Any]]) -> tuple[list[str], int]:
    """What to say, and the exit code, of the `dependencies` of pip-audit's reports."""
    found = list(report)
    skipped = sorted(package["name"] for package in found if "skip_reason" in package)
    weak = [package for package in found if package.get("vulns")]
    lines = [
        f"{package['name']} {package['version']}: {weakness['id']}, "
        + (f"mended in {', '.join(fixes)}" if (fixes := weakness["fix_versions"]) else "not mended")
        for package in weak
        for weakness in package["vulns"]
    ]
    if skipped:
        shown = ", ".join(skipped[:5]) + (", …" if len(skipped) > 5 else "")
        lines.append(
            f"{len(skipped)} of {len(found)} packages could not be looked up on PyPI ({shown})."
        )
        return lines, 2
    if weak:
        return lines, 1
    return [f"No weakness is known in any of the {len(found)} packages of the lock."], 0


def _audit(folder: Path) -> tuple[list[dict[str, Any]] | None, str]:
    """What pip-audit tells of each package; None and the reason where it cannot ask."""
    tool = folder / "tool"
    fetched = _python("pip", "install", "--quiet", "--target", str(tool), TOOL)
    if fetched.returncode:
        return None, "pip-audit could not be fetched."
    found: list[dict[str, Any]] = []
    for number, lot in enumerate(_lots(pins())):
        pinned, out = folder / f"{number}.txt", folder / f"{number}.json"
        pinned.write_text("".join(f"{name}=={version}\n" for name, version in lot))
        asked = _python(
            "pip_audit", "--requirement", str(pinned), "--no-deps", "--disable-pip",
            "--progress-spinner", "off", "--format", "json", "--output", str(out),
            path=tool,
        )  # fmt: skip
        try:
            found += json.loads(out.read_text(encoding="utf-8"))["dependencies"]
        except (OSError, ValueError, LookupError):
            reason = (asked.stderr.strip().splitlines() or ["no answer"])[-1]
            return None, f"The list of known weaknesses cannot be read ({reason[:200]})."
    return found, ""


def _lots(pinned: list[tuple[str, str]]) -> list[list[tuple[str, str]]]:
    """Each with no package twice, as pip-audit wants it."""
    lots: list[dict[str, str]] = [{}]
    for name, version in pinned:
        lot = next((lot for lot in lots if name not in lot), None)
        if lot is None:
            lots.append(lot := {})
        lot[name] = version
    return [list(lot.items()) for lot in lots]


def _python(
    module: str, *arguments: str, path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path)} if path else None
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
    )


if __name__ == "__main__":
    sys.exit(main())
