"""Preference tuning: TRL's DPOTrainer on rows that we tokenised."""

from __future__ import annotations

from typing import Any

from trl import DPOTrainer

from training_backend.training.trainer_habits import TrainerHabits


class PreferenceTrainer(TrainerHabits, DPOTrainer):  # type: ignore[misc]
    """Learns to prefer the chosen answer of each pair to the rejected one.

    What it must stay close to is the model with the adapter switched off, so there is no second
    model in memory. Rows are `prompt_ids`, `chosen_ids` and `rejected_ids`.
    """

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset
