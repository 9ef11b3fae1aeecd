"""The part of a script that saves what was learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training_backend.job import TrainingJob

if TYPE_CHECKING:
    from training_backend.script.base import Base


def begun_with(job: TrainingJob) -> str:
    """Before the first step: what the result is told from; "" where that is nothing."""
    if not _changes_base(job):
        return ""
    return (
        "# The adapter begins with numbers that were taken out of the base model's weights.\n"
        "first = {\n"
        "    name: value.detach().float().cpu().clone()\n"
        "    for name, value in get_peft_model_state_dict(trainer.model).items()\n"
        "}"
    )


def result_part(job: TrainingJob, base: Base, evaluates: bool) -> list[str]:
    """Blocks of source, after the last step."""
    target = "model" if job.training.method == "full" else "adapter"
    lines = [
        "trainer.save_state()  # every loss, in checkpoints/trainer_state.json",
        f'target = HERE / "{target}"',
        "trainer.model.save_pretrained(target)",
        "tokenizer.save_pretrained(target)",
    ]
    if job.training.method == "full":
        lines.insert(2, f"trainer.model.to(torch.{base.dtype})  # as the model's own files are")
    parts = ["\n".join(lines)]
    if evaluates and job.evaluation.keep_best:
        parts.insert(
            0,
            "# The model with the lowest held-out loss is the result.\n"
            "for name, value in trainer.model.named_parameters():\n"
            "    if name in held_out.best:\n"
            "        value.data.copy_(held_out.best[name])",
        )
    if _changes_base(job):
        parts.append(_AS_PLAIN.format(grows="2**0.5" if job.lora.use_rslora else "2"))
    return parts


_AS_PLAIN = """\
# Make it an adapter of the unchanged model: W + s (B A - B0 A0), of twice the rank
# (PiSSA, arXiv:2404.02948, appendix C).
both = load_file(target / "adapter_model.safetensors")
for name, value in both.items():
    before = first[name].to(value.dtype)
    if ".lora_A." in name:
        both[name] = torch.cat((value, before), dim=0)
    elif ".lora_B." in name:
        both[name] = torch.cat((value, -before), dim=1)
save_file(both, target / "adapter_model.safetensors", metadata={{"format": "pt"}})
config = json.loads((target / "adapter_config.json").read_text(encoding="utf-8"))
config["lora_alpha"] *= {grows}
config["r"] *= 2
config["init_lora_weights"] = True
(target / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")"""


def _changes_base(job: TrainingJob) -> bool:
    return job.training.method == "lora" and job.lora.changes_base
