"""What goes along with the weights: the texts of the base's licence, and a README.md."""

from __future__ import annotations

from pathlib import Path

from training_backend import runs
from training_backend.export.model_files import copy_file
from training_backend.hub.push_files import CARD, PICTURE
from training_backend.job import ExportJob
from training_backend.models import licence, origin
from training_backend.models.adapters import Adapter
from training_backend.summaries import card_facts, model_card


def write(job: ExportJob, source: Adapter | Path, out: Path, name: str) -> None:
    """Add them to an export whose other files are written.

    The README is the model card, of which the head names base and licence; it holds no paths.

    Args:
        source: what was exported: an adapter, or the folder of a model that was trained in full.
        name: of the folder to be.

    Raises `UserError` for a licence that is a link out of the base's folder.
    """
    if isinstance(source, Adapter):
        run, base = source.run, origin.of_adapter(source)
    else:
        run = runs.find(job.run)
        base = origin.of_run(run)
    for path in licence.files(base.folder) if base.folder else ():
        copy_file(path, out)
    card = model_card.write(out, name, run, card_facts.public(base))
    (out / CARD).write_text(card.text, encoding="utf-8")
    if card.picture is not None:
        (out / PICTURE).write_bytes(card.picture)
