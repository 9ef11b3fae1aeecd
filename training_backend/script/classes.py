"""The classes in a script: what TRL's trainer does not do by itself."""

from __future__ import annotations

from training_backend.job import TrainingJob


def trainer_class(job: TrainingJob, evaluates: bool) -> str:
    """A class of its own where TRL's does not do all of it; "" where it does."""
    parts = []
    if job.training.objective == "dpo":
        parts.append(
            "    def _prepare_dataset(self, dataset, *arguments):\n"
            "        return dataset  # tokenised already"
        )
    if _has_two_rates(job):
        parts.append(
            "    def create_optimizer(self, model=None):\n"
            "        # LoRA+ (arXiv:2402.12354): the second matrix of each pair learns faster.\n"
            "        kind, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)\n"
            "        self.optimizer = create_loraplus_optimizer(\n"
            "            self.model,\n"
            "            kind,\n"
            f"            loraplus_lr_ratio={job.lora.loraplus_lr_ratio},\n"
            "            loraplus_weight_decay=self.args.weight_decay,\n"
            "            **settings,\n"
            "        )\n"
            "        return self.optimizer"
        )
    if evaluates:
        parts.append(
            "    def evaluate(self, *arguments, **options):\n"
            "        # Tests leave the random numbers of the training alone.\n"
            "        with torch.random.fork_rng():\n"
            "            return super().evaluate(*arguments, **options)"
        )
    if not parts:
        return ""
    return f"class Trainer({trl_name(job)}Trainer):\n" + "\n\n".join(parts)


def held_out_class(job: TrainingJob) -> str:
    """What follows from the tests on the held-out rows, as in `held_out.py`."""
    patience, keeps = job.evaluation.early_stopping_patience, job.evaluation.keep_best
    lines = ["class HeldOut(TrainerCallback):"]
    if patience or keeps:
        lines += ['    lowest = float("inf")']
        lines += ["    best = {}"] * keeps
        lines += ["    tests_since = 0"] * bool(patience)
        lines += ["", "    def on_evaluate(self, args, state, control, metrics, model, **_):"]
        lines += ["        self.tests_since += 1"] * bool(patience)
        lines += ['        if metrics["eval_loss"] < self.lowest:']
        lines += ['            self.lowest = metrics["eval_loss"]']
        lines += ["            self.tests_since = 0"] * bool(patience)
    if keeps:
        lines += [
            "            self.best = {",
            '                name: value.detach().to("cpu", copy=True)',
            "                for name, value in model.named_parameters()",
            "                if value.requires_grad",
            "            }",
        ]
    if patience:
        lines += [
            f"        if self.tests_since >= {patience}:",
            "            control.should_training_stop = True  # it learns no more",
        ]
    lines += [""] * (len(lines) > 1)
    lines += [
        "    def on_step_end(self, args, state, control, **_):",
        "        if state.global_step >= state.max_steps:",
        "            control.should_evaluate = True  # the last model is tested too",
    ]
    return "\n".join(lines)


def trl_name(job: TrainingJob) -> str:
    """How the names of TRL's classes for a job begin."""
    return {"sft": "SFT", "dpo": "DPO"}[job.training.objective]


def _has_two_rates(job: TrainingJob) -> bool:
    return job.training.method == "lora" and job.lora.loraplus_lr_ratio != 1.0
