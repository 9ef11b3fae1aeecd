#!/usr/bin/env bash
# Makes the lock anew from pyproject.toml; needs `uv`. Pins that the lock already holds are
# kept: `relock.sh --upgrade-package NAME` moves one of them, `relock.sh --upgrade` all.
# torch.txt is edited by hand, together with `tool.uv.dependency-metadata` in pyproject.toml.
set -euo pipefail
cd "$(dirname "$0")/../.."

uv pip compile --quiet pyproject.toml --extra gui "$@" \
    --constraints packaging/requirements/torch.txt --output-file packaging/requirements/runtime.txt

# The tools of the `dev` extra alone, without what runtime.txt already installs.
known=$(grep --extended-regexp --only-matching '^[a-z0-9-]+' packaging/requirements/runtime.txt)
uv pip compile --quiet pyproject.toml --extra dev "$@" \
    --constraints packaging/requirements/torch.txt \
    --constraints packaging/requirements/runtime.txt \
    $(printf -- '--no-emit-package %s ' torch $known) \
    --output-file packaging/requirements/dev.txt
