"""Everything of a run beside its model: data, optimizer, mesh, length, evaluation, tracking."""

from dataclasses import dataclass, field
from typing import Literal

from ligr_jax.config.errors import require
from ligr_jax.config.model import ModelConfig
from ligr_jax.config.renamed import check_value
from ligr_jax.places import require_local

PLACEMENTS = ("auto", "replicated", "column_wise", "row_wise", "table_wise")


@dataclass(frozen=True)
class DataConfig:
    """Which prepared data, how it is cut into rows."""

    dir: str = ""
    digest: str = ""  # of the manifest, filled in: two runs on equal data have equal digests
    seq_len: int = 256  # T: tokens of a row, two per impression
    context: float = 0.5  # share of a row kept for earlier history where a member has more
    fraction: float = 1.0  # of the members, for data scaling
    # Where train begins and ends, and where validation and test end, in ms, in place of the times
    # that `ligr prepare` cut at: a day of a log, say. What is earlier is history.
    edges: tuple[int, ...] = ()
    workers: int = 0  # loader processes; 0 reads in threads of this process

    def __post_init__(self) -> None:
        require_local(self.dir)
        require(
            self.seq_len >= 4 and self.seq_len % 2 == 0,
            f"data.seq_len={self.seq_len} must be even and >= 4: an impression is two tokens",
        )
        require(0 <= self.context < 1, f"data.context={self.context} must be in [0, 1)")
        require(0 < self.fraction <= 1, f"data.fraction={self.fraction} must be in (0, 1]")
        require(self.workers >= 0, f"data.workers={self.workers} must be >= 0")
        require(
            not self.edges
            or (
                len(self.edges) == 4
                and self.edges[0] >= 0
                and list(self.edges) == sorted(self.edges)
            ),
            f"data.edges={self.edges} must be four times in ms, none before the one ahead of it",
        )


@dataclass(frozen=True)
class OptimConfig:
    """Separate optimizers and rates for tables and dense weights (LiGR A.1)."""

    batch: int = 32  # rows of a global batch
    accumulate: int = 1  # micro-batches of a step
    dense_lr: float = 1e-3
    table_lr: float = 1e-2
    warmup: float = 0.05  # share of the steps
    decay: Literal["cosine", "wsd", "none"] = "cosine"  # wsd: flat, then linear over the last fifth
    weight_decay: float = 0.0  # decoupled, dense matrices only
    # Of tables. All but adamw move only the rows of a batch; adamw reads all of them every step.
    table_optimizer: Literal["rowwise_adagrad", "adagrad", "lazy_adam", "sgd", "adamw"] = (
        "rowwise_adagrad"
    )
    table_weight_decay: float = 0.0  # decoupled, of the rows moved
    clip: float = 1.0  # global gradient norm; 0 for none
    rank_weight: float = 0.1  # lambda of the Attention Rank loss

    def __post_init__(self) -> None:
        for name in ("batch", "accumulate"):
            require(getattr(self, name) >= 1, f"optim.{name}={getattr(self, name)} must be >= 1")
        for name in (
            "dense_lr",
            "table_lr",
            "weight_decay",
            "table_weight_decay",
            "clip",
            "rank_weight",
        ):
            require(getattr(self, name) >= 0, f"optim.{name}={getattr(self, name)} must be >= 0")
        require(
            self.batch % self.accumulate == 0,
            f"optim.batch={self.batch} is not divisible by optim.accumulate={self.accumulate}",
        )
        require(0 <= self.warmup < 1, f"optim.warmup={self.warmup} must be in [0, 1)")


@dataclass(frozen=True)
class MeshConfig:
    """Which devices share the work, and how the tables lie on them."""

    data: int = 0  # groups of devices, each with a copy of the tables; 0: what devices are left
    model: int = 1  # devices of a group: they share its tables
    fsdp: bool = False  # dense weights and Adam's moments split over `data`, gathered for a step
    # Of tables: auto (the planner's choice), replicated, column, row or table; and of single ones,
    # e.g. auto,item_id:column,member_id:row
    placement: tuple[str, ...] = ("auto",)
    table_gib: float = 0.0  # memory of a device for tables; 0: three fifths of what it has

    def __post_init__(self) -> None:
        require(self.data >= 0, f"mesh.data={self.data} must be >= 0")
        require(self.model >= 1, f"mesh.model={self.model} must be >= 1")
        require(self.table_gib >= 0, f"mesh.table_gib={self.table_gib} must be >= 0")
        for entry in self.placement:
            table, colon, word = entry.rpartition(":")
            check_value("mesh.placement", word, prefix=table + colon)
            require(
                word in PLACEMENTS,
                f"mesh.placement={entry}: choose one of {', '.join(PLACEMENTS)}, alone or "
                "after the name of a table and a colon",
            )


@dataclass(frozen=True)
class WarmConfig:
    """Training that goes on from earlier runs (LiRank 3.6; `ligr_jax.train.incremental`)."""

    run: str = ""  # run directory of w_{t-1}, the newest weights
    cold_run: str = ""  # run directory of w_0, trained from nothing
    digest: str = ""  # of both configurations, filled in
    cold_weight: float = 0.0  # alpha: the share of w_0 in the start and in the penalty
    fisher_weight: float = 0.0  # lambda: weight of the Fisher penalty; 0 for no penalty
    examples: int = 4096  # impressions that tell which weights each of the runs relies on

    def __post_init__(self) -> None:
        require_local(self.run)
        require_local(self.cold_run)
        require(
            self.fisher_weight >= 0, f"train.warm.fisher_weight={self.fisher_weight} must be >= 0"
        )
        require(
            0 <= self.cold_weight <= 1,
            f"train.warm.cold_weight={self.cold_weight} must be in [0, 1]",
        )
        require(self.examples >= 1, f"train.warm.examples={self.examples} must be >= 1")
        require(
            bool(self.run) or not (self.fisher_weight or self.cold_run),
            f"train.warm.fisher_weight={self.fisher_weight} and "
            f"train.warm.cold_run={self.cold_run!r} need train.warm.run, the run to start from",
        )
        require(
            bool(self.cold_run) or not self.cold_weight,
            f"train.warm.cold_weight={self.cold_weight} needs train.warm.cold_run, the run trained "
            "from nothing",
        )


@dataclass(frozen=True)
class TrainConfig:
    """How long, how often, and when to give up."""

    seed: int = 0
    epochs: float = 1.0
    flops: float = 0.0  # a budget in counted FLOPs (flops_model), instead of epochs
    steps: int = 0  # instead of both
    log_every: int = 20
    eval_every: int = 0  # 0: only at the end
    checkpoint_every: int = 200
    checkpoint_minutes: float = 10.0  # also save when this time has passed; 0: only by steps
    keep: int = 2  # newest checkpoints kept
    max_bad_steps: int = 10  # non-finite steps in a row after which the run stops
    warm: WarmConfig = field(default_factory=WarmConfig)

    def __post_init__(self) -> None:
        require(self.epochs > 0, f"train.epochs={self.epochs} must be > 0")
        require(self.flops >= 0, f"train.flops={self.flops} must be >= 0")
        require(
            not (self.flops and self.steps),
            f"train.flops={self.flops:g} and train.steps={self.steps} both say how long to train; "
            "set one of them to 0",
        )
        for name in ("seed", "steps", "eval_every", "checkpoint_minutes"):
            require(getattr(self, name) >= 0, f"train.{name}={getattr(self, name)} must be >= 0")
        for name in ("log_every", "checkpoint_every", "keep", "max_bad_steps"):
            require(getattr(self, name) >= 1, f"train.{name}={getattr(self, name)} must be >= 1")


@dataclass(frozen=True)
class EvalConfig:
    """What a finished run is measured on."""

    splits: tuple[str, ...] = ("validation", "test")
    batch: int = 0  # rows; 0 for optim.batch
    cold_below: int = 5  # an item or member with fewer train impressions is a cold start

    def __post_init__(self) -> None:
        valid = ("train", "validation", "test")
        for name in ("batch", "cold_below"):
            require(getattr(self, name) >= 0, f"eval.{name}={getattr(self, name)} must be >= 0")
        unknown = [s for s in self.splits if s not in valid]
        require(not unknown, f"eval.splits holds {unknown}; choose from {valid}")


@dataclass(frozen=True)
class TrackConfig:
    """Where metrics are mirrored; `metrics.jsonl` in the run directory is always written."""

    # auto: what WANDB_MODE says, else online with a key, else offline. Likewise the others: "" is
    # WANDB_PROJECT (else ligr), WANDB_ENTITY, WANDB_RUN_GROUP.
    wandb: Literal["auto", "online", "offline", "off"] = "auto"
    project: str = ""
    entity: str = ""
    group: str = ""


@dataclass(frozen=True)
class Config:
    """The whole run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    track: TrackConfig = field(default_factory=TrackConfig)
