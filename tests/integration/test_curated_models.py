"""The catalogue's configurations, built by transformers, give the published parameters."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from training_backend.models import curated

REPOSITORY = Path(__file__).parent.parent.parent

# On the meta device a model of 70 billion parameters takes no memory and little time.
COUNT = """
import json, sys, torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging
logging.set_verbosity_error()
counts = {}
for id, document in json.load(sys.stdin).items():
    config = AutoConfig.for_model(**document)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    counts[id] = [sum(p.numel() for p in model.parameters()), config.max_position_embeddings]
print(json.dumps(counts))
"""


def test_every_model_of_the_catalogue_has_the_published_number_of_parameters() -> None:
    answer = subprocess.run(
        [sys.executable, "-c", COUNT],
        cwd=REPOSITORY,
        input=json.dumps({model.id: curated.config(model.id) for model in curated.models()}),
        stdout=subprocess.PIPE,
        encoding="utf-8",
        check=True,
    )
    counts = json.loads(answer.stdout)
    assert counts == {
        model.id: [model.parameters, model.context_length] for model in curated.models()
    }
