"""Suggestions of names of the configuration for an unknown name."""

import difflib
from collections.abc import Sequence

_MOST = 4  # largest number of suggestions
# Names of the fields in other projects.
_SYNONYMS = {
    "optim.dense_lr": ("lr", "learning_rate", "dense_learning_rate", "rate", "max_lr", "peak_lr"),
    "optim.table_lr": ("lr", "learning_rate", "table_learning_rate", "embedding_lr", "sparse_lr"),
    "optim.batch": ("batch_size", "bs", "bsz", "global_batch_size", "train_batch_size"),
    "optim.accumulate": (
        "grad_accum",
        "accumulation",
        "gradient_accumulation",
        "gradient_accumulation_steps",
        "microbatches",
        "micro_batches",
    ),
    "optim.warmup": ("warmup_steps", "warmup_ratio", "warm_up"),
    "optim.decay": ("schedule", "lr_schedule", "scheduler"),
    "optim.weight_decay": ("wd", "l2", "dense_weight_decay"),
    "optim.table_optimizer": ("optimizer", "embedding_optimizer"),
    "optim.clip": ("grad_clip", "clip_norm", "max_grad_norm", "gradient_clip", "clip_grad"),
    "train.epochs": ("epoch", "num_epochs", "n_epochs", "max_epochs"),
    "train.steps": ("step", "num_steps", "n_steps", "max_steps", "iterations", "max_iters"),
    "train.flops": ("budget", "compute"),
    "train.seed": ("random_seed", "rng_seed"),
    "train.log_every": ("log_interval", "log_steps", "logging_steps"),
    "train.eval_every": ("eval_interval", "eval_steps", "val_every", "validate_every"),
    "train.checkpoint_every": ("save_every", "save_steps", "save_interval", "ckpt_every"),
    "model.depth": ("layers", "num_layers", "n_layers", "n_layer", "blocks", "num_blocks"),
    "model.width": (
        "dim",
        "d_model",
        "hidden",
        "hidden_dim",
        "hidden_size",
        "embed_dim",
        "n_embd",
        "emb_dim",
        "model_dim",
    ),
    "model.heads": ("num_heads", "n_heads", "n_head", "attention_heads"),
    "model.ffn_factor": ("ffn", "mlp_ratio", "d_ff", "ff_mult"),
    "model.table_width": ("embedding_dim", "embedding_size", "embedding_width", "id_dim"),
    "model.kind": ("model", "arch", "architecture", "type"),
    "model.dtype": ("precision", "bf16", "fp16", "amp", "mixed_precision"),
    "model.remat": ("gradient_checkpointing", "checkpointing", "recompute"),
    "model.actions": ("labels", "targets", "tasks", "target"),
    "data.seq_len": (
        "seq_length",
        "sequence_length",
        "max_len",
        "max_length",
        "max_seq_len",
        "context_length",
        "block_size",
        "history",
    ),
    "data.fraction": ("subset", "data_fraction", "sample"),
    "data.workers": ("num_workers", "n_workers", "loaders"),
    "mesh.data": ("devices", "num_devices", "gpus", "dp", "data_parallel"),
    "mesh.model": ("tp", "model_parallel", "tensor_parallel"),
    "eval.batch": ("eval_batch_size", "eval_batch", "val_batch_size"),
    "track.project": ("wandb_project",),
    "track.entity": ("wandb_entity", "team"),
    "track.wandb": ("wandb_mode", "tracking"),
}


def nearest_names(word: str, names: Sequence[str]) -> str:
    """Return the end of a message about an unknown name: the names that the user may have meant.

    Suggestions are fields that other projects call by this name, fields with the same last part,
    fields with a similar name, and fields that contain the name, in this order.

    Args:
        word: the unknown name.
        names: all names of the configuration.
    """
    leaf = word.rpartition(".")[2].lower().replace("-", "_")
    inside = word.startswith("model.features.")
    known = [n for n in names if inside or not n.startswith("model.features.")]
    leaves = {n: n.rpartition(".")[2] for n in known}
    near = [n for n, words in _SYNONYMS.items() if leaf in words and n in leaves]
    near += [n for n in known if leaves[n] == leaf]
    if not near:
        near = difflib.get_close_matches(word, known, n=3, cutoff=0.7)
        close = difflib.get_close_matches(leaf, leaves.values(), n=3, cutoff=0.7)
        near += [n for c in close for n in known if leaves[n] == c]
    if not near:
        near = [n for n in known if len(leaf) > 2 and leaf in leaves[n]]
        near += difflib.get_close_matches(word, known, n=2, cutoff=0.5)
    shown = list(dict.fromkeys(near))[:_MOST]
    if shown:
        return f"nearest: {', '.join(shown)}"
    groups = ", ".join(dict.fromkeys(n.partition(".")[0] for n in names))
    return f"names begin with {groups} and a dot; `ligr train --data DIR --show` prints all"
