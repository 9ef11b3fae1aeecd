"""The sections of a job that say how a model is trained: base, adapter, optimisation."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ValidationInfo, field_validator

from training_backend.job_fields import Section, field

# PEFT's names; "default" is its own way, with the second matrix at zero.
Start = Literal["default", "gaussian", "orthogonal", "olora", "pissa"]


class QuantizationSection(Section):
    load_in_4bit: bool = field(
        True,
        "Load in 4-bit (QLoRA)",
        "The base model in a quarter of its memory, a little slower. Off: 16-bit LoRA.",
    )
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = field(
        "nf4",
        "4-bit type",
        "NF4 spaces its 16 levels as trained weights are spread; it is the better choice.",
        advanced=True,
    )
    bnb_4bit_use_double_quant: bool = field(
        True,
        "Double quantisation",
        "Quantises the scaling constants too: saves about 0.4 bit a parameter.",
        advanced=True,
    )
    bnb_4bit_compute_dtype: Literal["bfloat16", "float16", "float32"] = field(
        "bfloat16",
        "Compute type",
        "What the 4-bit weights are unpacked to for arithmetic.",
        advanced=True,
    )


class LoraSection(Section):
    r: int = field(
        16,
        "Rank",
        "Size of the adapter. 8 serves most tasks, 16 is a good start, beyond 64 little is won.",
        aliases=("rank", "lora_r", "lora_rank"),
        ge=1,
        le=1024,
    )
    lora_alpha: int = field(
        32,
        "Alpha",
        "Strength of the adapter; it counts as alpha / rank. Twice the rank is a good start.",
        aliases=("alpha",),
        ge=1,
        le=4096,
        advanced=True,
    )
    lora_dropout: float = field(
        0.0,
        "Dropout",
        "Share of adapter inputs left out at random while training. 0 is fastest; 0.05 helps "
        "against learning small data by heart.",
        aliases=("dropout",),
        ge=0.0,
        le=0.9,
        advanced=True,
    )
    target_modules: Literal["all-linear", "attention"] | tuple[str, ...] = field(
        "all-linear",
        "Layers",
        "all-linear adapts every linear layer, attention only those of attention (less memory, "
        "learns less); or name the layers, separated by commas (q_proj, v_proj).",
        advanced=True,
    )
    layers_to_transform: Literal["all"] | tuple[int, ...] = field(
        "all",
        "Blocks",
        "Which of the model's blocks get an adapter, counted from 0, such as 8-15; the upper half "
        "alone is faster.",
        advanced=True,
    )
    modules_to_save: Literal["none"] | tuple[str, ...] = field(
        "none",
        "Train in full as well",
        "Parts that are trained whole beside the adapter, such as norm or lm_head. Costs memory; "
        "rarely needed.",
        advanced=True,
    )
    use_rslora: bool = field(
        False,
        "Rank-stabilised scaling",
        "Scales by alpha / sqrt(rank), which keeps high ranks effective (rsLoRA).",
        advanced=True,
    )
    use_dora: bool = field(
        False,
        "Train sizes apart (DoRA)",
        "Learns direction and size of the weights apart: often a little better at low ranks, "
        "slower, more memory.",
        advanced=True,
    )
    init_lora_weights: Start = field(
        "default",
        "Start of the adapter",
        "How its numbers begin. As usual is good; PiSSA and OLoRA take the strongest directions of "
        "the base (16-bit only) and learn faster at first.",
        advanced=True,
    )
    loraplus_lr_ratio: float = field(
        1.0,
        "Faster second half (LoRA+)",
        "Learning rate of the adapter's second matrix against the first; 16 often learns faster. "
        "Halve the learning rate with it.",
        special="off",
        ge=1.0,
        le=1000.0,
        advanced=True,
    )

    @field_validator("target_modules", "modules_to_save", "layers_to_transform")
    @classmethod
    def _named(cls, value: Any, about: ValidationInfo) -> Any:
        if isinstance(value, str):
            return value
        if about.field_name == "layers_to_transform":
            if not value or min(value) < 0 or len(set(value)) < len(value):
                raise ValueError("name each block once, by its number from 0, or write all")
            return value
        if not value or any(not name.strip() for name in value):
            word = "all-linear" if about.field_name == "target_modules" else "none"
            raise ValueError(f"name at least one layer, or write {word}")
        return value

    @property
    def changes_base(self) -> bool:
        """Whether the start takes the adapter's first numbers out of the base's weights."""
        return self.init_lora_weights in ("pissa", "olora")


Scheduler = Literal[
    "linear",
    "cosine",
    "cosine_with_min_lr",
    "constant",
    "constant_with_warmup",
    "polynomial",
    "inverse_sqrt",
]
Optimizer = Literal[
    "auto",
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_8bit",
    "paged_adamw_8bit",
    "paged_adamw_32bit",
    "lion_8bit",
    "ademamix_8bit",
    "adafactor",
    "sgd",
]


Method = Literal["lora", "full"]


class TrainingSection(Section):
    method: Method = field(
        "lora",
        "What is trained",
        "A small adapter beside the model; or every weight of it, for small models only, with many "
        "times the memory.",
        advanced=True,
    )
    objective: Literal["sft", "dpo"] = field(
        "sft",
        "What is learned",
        "To give the answers of the data; or to prefer the chosen answer of each pair to the "
        "rejected one, which wants a learning rate of about 5e-6 to 5e-5.",
        advanced=True,
    )
    beta: float = field(
        0.1,
        "Closeness (DPO)",
        "How close DPO stays to the model as it was: higher changes it less.",
        gt=0,
        le=100,
        advanced=True,
    )
    num_train_epochs: float = field(
        3.0,
        "Epochs",
        "How often the whole data is gone through.",
        aliases=("epochs", "num_epochs"),
        gt=0,
        le=1000,
    )
    max_steps: int = field(
        -1,
        "Stop after steps",
        "Ends after so many steps, whatever the epochs say.",
        special="by epochs",
        aliases=("steps", "num_steps"),
        ge=-1,
        le=10_000_000,
        advanced=True,
    )
    learning_rate: float = field(
        2e-4,
        "Learning rate",
        "How far each step goes. 2e-4 suits LoRA; small models take up to 1e-3.",
        aliases=("lr",),
        gt=0,
        le=1.0,
    )
    per_device_train_batch_size: int = field(
        2,
        "Batch size",
        "Rows at once on the card. The main lever for memory.",
        aliases=("batch_size", "micro_batch_size", "train_batch_size"),
        ge=1,
        le=1024,
    )
    gradient_accumulation_steps: int = field(
        4,
        "Gradient accumulation",
        "Batches summed up before each step: a larger batch without more memory.",
        aliases=("grad_accum", "accumulation_steps"),
        ge=1,
        le=4096,
        advanced=True,
    )
    max_length: int = field(
        1024,
        "Longest row",
        "Rows longer than this are cut at the end.",
        unit="tokens",
        aliases=("max_seq_length", "cutoff_len", "sequence_len", "block_size"),
        ge=8,
        le=1_000_000,
    )
    packing: bool = field(
        False,
        "Pack short rows together",
        "Fills each sequence with several rows, kept apart from one another: faster on short rows.",
        advanced=True,
    )
    padding_free: bool = field(
        False,
        "No padding",
        "Lays the rows of a batch end to end, kept apart, instead of filling up the shorter ones: "
        "less to compute where lengths differ.",
        advanced=True,
    )
    train_sampling_strategy: Literal["random", "group_by_length"] = field(
        "random",
        "Order of rows",
        "By length puts rows of like length together: less padding, so faster, but the order is "
        "less random.",
        advanced=True,
    )
    activation_checkpointing: bool = field(
        True,
        "Activation checkpointing",
        "Computes activations twice instead of keeping them: much less memory, about a third "
        "slower.",
        aliases=("gradient_checkpointing",),
        advanced=True,
    )
    activation_checkpointing_every_n_layers: int = field(
        1,
        "Recompute every",
        "With activation checkpointing: 1 recomputes every layer. 2 keeps the activations of "
        "every other one: faster, but more memory; higher numbers keep more.",
        unit="layers",
        ge=1,
        le=1000,
        advanced=True,
    )
    halve_batch_when_out_of_memory: bool = field(
        False,
        "Halve the batch when memory runs out",
        "Goes on by itself from the last good step with half the rows at once, accumulated twice "
        "as often; at most twice.",
        advanced=True,
    )
    lr_scheduler_type: Scheduler = field(
        "cosine",
        "Schedule",
        "How the learning rate falls over the run. Cosine, to 0 or to a tenth, suits most runs.",
        advanced=True,
    )
    warmup_steps: float = field(
        0.03,
        "Warm-up",
        "Steps in which the learning rate rises; below 1 a share of the run.",
        ge=0,
        le=1_000_000,
        advanced=True,
    )
    optim: Optimizer = field(
        "auto",
        "Optimizer",
        "Automatic takes paged 8-bit AdamW on a GPU and plain AdamW on the CPU. Lion wants a tenth "
        "of the learning rate.",
        advanced=True,
    )
    weight_decay: float = field(
        0.0, "Weight decay", "Pulls the adapter's weights towards zero.", ge=0, le=1, advanced=True
    )
    max_grad_norm: float = field(
        1.0, "Gradient clipping", "Longest gradient that a step may use.", gt=0, le=1000,
        advanced=True,
    )  # fmt: skip
    neftune_noise_alpha: float = field(
        0.0,
        "Noise on inputs (NEFTune)",
        "Adds a little noise to the words while training, which can make answers fuller and less "
        "learned by heart; 5 is usual.",
        special="off",
        ge=0.0,
        le=100.0,
        advanced=True,
    )
    torch_compile: bool = field(
        False,
        "Compile the model",
        "Translates the model for this card: the first steps take minutes longer, later ones 10 to "
        "25 % less. Pays off for runs of hours.",
        advanced=True,
    )
    fast_paths: bool = field(
        True,
        "Fast paths",
        "Skips work whose result is not used; turn off to compare bit for bit with a plain script.",
        advanced=True,
    )
    save_steps: int = field(
        50,
        "Checkpoint every",
        "Steps between checkpoints; one also comes after ten minutes without.",
        unit="steps",
        ge=1,
        le=1_000_000,
        advanced=True,
    )
    save_total_limit: int = field(
        3,
        "Checkpoints kept",
        "The newest so many stay, and the best where rows are held out; each save removes older "
        "ones. At least two.",
        ge=2,
        le=1000,
        advanced=True,
    )
    logging_steps: int = field(
        1, "Report every", "Steps between points on the chart.", unit="steps", ge=1, le=10_000,
        advanced=True,
    )  # fmt: skip
    tensorboard: bool = field(
        False,
        "Write TensorBoard logs",
        "Keeps the curves in the run's folder as TensorBoard reads them, beside our own charts.",
        advanced=True,
    )
    seed: int = field(
        42, "Seed", "The same seed and settings give the same run.", ge=0, le=2**31 - 1,
        advanced=True,
    )  # fmt: skip
