"""Configuration of a run: data, optimizer, mesh, training, evaluation and tracking."""

from dataclasses import dataclass, field
from typing import Literal

from ligr_jax.config.errors import require
from ligr_jax.config.model import ModelConfig
from ligr_jax.config.renamed import check_value
from ligr_jax.places import require_supported

PLACEMENTS = ("auto", "replicated", "column_wise", "row_wise", "table_wise")


@dataclass(frozen=True)
class DataConfig:
    """Prepared data, and how they are cut into rows."""

    dir: str = ""
    """Directory or URI written by `ligr prepare`."""
    digest: str = ""
    """Digest of the manifest, set automatically. Runs on equal data have equal digests."""
    seq_len: int = 256
    """T, tokens of a row. An impression has two tokens."""
    context: float = 0.5
    """Share of a row that is reserved for earlier history, if the member has more history."""
    fraction: float = 1.0
    """Share of the members used in training, for data scaling."""
    shuffle_sessions: bool = False
    """Whether training permutes the impressions of every session in every epoch (Feed-SR). With
    `model.mask=causal` the run is marked as a leak, and evaluated under the session mask
    (`ligr_jax.config.leaks`)."""
    half_life_days: float = 0.0
    """Age in days at which the loss weight of a train impression is halved; 0 for no such weights
    (`ligr_jax.data.weight_decay`)."""
    half_life_impressions: float = 0.0
    """Number of later impressions of the member in a row at which the loss weight of a train
    impression is halved; 0 for no such weights."""
    edges: tuple[int, ...] = ()
    """Four times in milliseconds that replace the splits of `ligr prepare`: start and end of train,
    end of validation, end of test. Earlier impressions are history."""
    workers: int = -1
    """Number of loader processes; 0 loads in threads of this process. -1 chooses from the tokens
    per second that the devices want and that a core makes; on a CPU it stands for 0."""

    def __post_init__(self) -> None:
        require_supported(self.dir)
        require(
            self.seq_len >= 4 and self.seq_len % 2 == 0,
            f"data.seq_len={self.seq_len} must be even and >= 4: an impression is two tokens",
        )
        require(0 <= self.context < 1, f"data.context={self.context} must be in [0, 1)")
        require(0 < self.fraction <= 1, f"data.fraction={self.fraction} must be in (0, 1]")
        require(self.workers >= -1, f"data.workers={self.workers} must be >= -1")
        for name in ("half_life_days", "half_life_impressions"):
            require(getattr(self, name) >= 0, f"data.{name}={getattr(self, name)} must be >= 0")
        require(
            not self.edges
            or (
                len(self.edges) == 4
                and self.edges[0] >= 0
                and list(self.edges) == sorted(self.edges)
            ),
            f"data.edges={self.edges} must be four times in ms that do not decrease",
        )


@dataclass(frozen=True)
class OptimConfig:
    """Optimizers and learning rates of tables and of dense weights (LiGR A.1)."""

    batch: int = 32
    """Rows of a global batch."""
    accumulate: int = 1
    """Micro-batches of a step, whose gradients are averaged."""
    dense_lr: float = 1e-3
    """Peak learning rate of dense weights (AdamW)."""
    table_lr: float = 1e-2
    """Peak learning rate of tables."""
    warmup: float = 0.05
    """Share of the steps in which the learning rates increase linearly."""
    decay: Literal["cosine", "wsd", "none"] = "cosine"
    """Schedule after the warmup. `wsd` is constant, then linear to 0 in the last fifth."""
    weight_decay: float = 0.0
    """Decoupled weight decay of dense matrices."""
    table_optimizer: Literal["rowwise_adagrad", "adagrad", "lazy_adam", "sgd", "adamw"] = (
        "rowwise_adagrad"
    )
    """Optimizer of tables. All except `adamw` read and update only the rows of a batch."""
    table_weight_decay: float = 0.0
    """Decoupled weight decay of the table rows that a step updates."""
    clip: float = 1.0
    """Largest global gradient norm; 0 disables clipping."""
    bce_weight: float = 1.0
    """Weight of the binary cross-entropy of the actions; 0 trains on the other losses alone."""
    rank_weight: float = 0.1
    """Lambda, weight of the Attention Rank loss."""
    pair_weight: float = 0.0
    """Weight of the pairwise loss within sessions (`ligr_jax.ops.pairwise`)."""

    def __post_init__(self) -> None:
        for name in ("batch", "accumulate"):
            require(getattr(self, name) >= 1, f"optim.{name}={getattr(self, name)} must be >= 1")
        for name in (
            "dense_lr",
            "table_lr",
            "weight_decay",
            "table_weight_decay",
            "clip",
            "bce_weight",
            "rank_weight",
            "pair_weight",
        ):
            require(getattr(self, name) >= 0, f"optim.{name}={getattr(self, name)} must be >= 0")
        require(
            self.batch % self.accumulate == 0,
            f"optim.batch={self.batch} is not divisible by optim.accumulate={self.accumulate}; "
            "change one of the two",
        )
        require(0 <= self.warmup < 1, f"optim.warmup={self.warmup} must be in [0, 1)")


@dataclass(frozen=True)
class MeshConfig:
    """The mesh of devices, and the placement of tables on it."""

    data: int = 0
    """Size of the mesh axis `data`, over which rows of a batch are sharded; 0 stands for the number
    of devices divided by `mesh.model`."""
    model: int = 1
    """Size of the mesh axis `model`, over which tables and rows of a batch are sharded."""
    fsdp: bool = False
    """Whether dense weights and Adam's moments are sharded over `data` and gathered in a step."""
    placement: tuple[str, ...] = ("auto",)
    """Placement of tables: `auto` (the planner chooses), `replicated`, `column_wise`, `row_wise` or
    `table_wise`; also for single tables, e.g. `auto,item_id:column_wise,member_id:row_wise`."""
    table_gib: float = 0.0
    """Memory of a device for tables and their optimizer state, GiB; 0 stands for 60 % of the
    device's memory."""

    def __post_init__(self) -> None:
        require(self.data >= 0, f"mesh.data={self.data} must be >= 0")
        require(self.model >= 1, f"mesh.model={self.model} must be >= 1")
        require(self.table_gib >= 0, f"mesh.table_gib={self.table_gib} must be >= 0")
        for entry in self.placement:
            table, colon, placement = entry.rpartition(":")
            check_value("mesh.placement", placement, prefix=table + colon)
            require(
                placement in PLACEMENTS,
                f"mesh.placement={entry}: choose one of {', '.join(PLACEMENTS)}, alone or "
                "after the name of a table and a colon",
            )


@dataclass(frozen=True)
class WarmConfig:
    """Start from the weights of earlier runs, with a Fisher penalty (LiRank 3.6).

    See `ligr_jax.train.incremental`.
    """

    run: str = ""
    """Run directory of w_{t-1}, the latest weights."""
    cold_run: str = ""
    """Run directory of w_0, weights that were trained from scratch."""
    digest: str = ""
    """Digests of both configurations, set automatically."""
    cold_weight: float = 0.0
    """Alpha, the share of w_0 in the initial weights and in the penalty."""
    fisher_weight: float = 0.0
    """Lambda, the weight of the Fisher penalty (elastic weight consolidation); 0 disables it."""
    examples: int = 4096
    """Number of impressions from which the Fisher information is estimated."""

    def __post_init__(self) -> None:
        require_supported(self.run)
        require_supported(self.cold_run)
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
            f"train.warm.cold_weight={self.cold_weight} needs train.warm.cold_run, a run trained "
            "from scratch",
        )


@dataclass(frozen=True)
class TrainConfig:
    """Length of training, and intervals of logging, evaluation and checkpoints."""

    seed: int = 0
    """Random seed of the initial weights, the order of rows and dropout."""
    epochs: float = 1.0
    """Passes over the training data."""
    flops: float = 0.0
    """Budget in FLOPs (`flops_model`), instead of epochs."""
    steps: int = 0
    """Number of steps, instead of epochs and FLOPs."""
    log_every: int = 20
    """Steps between two rows of the metrics log."""
    eval_every: int = 0
    """Steps between two evaluations; 0 evaluates only at the end."""
    checkpoint_every: int = 200
    """Steps between two checkpoints."""
    checkpoint_minutes: float = 10.0
    """Minutes after which a checkpoint is written in any case; 0 disables this."""
    keep: int = 2
    """Number of checkpoints that are kept."""
    max_bad_steps: int = 10
    """Number of consecutive steps with a non-finite loss after which the run stops."""
    warm: WarmConfig = field(default_factory=WarmConfig)
    """Start from earlier runs."""

    def __post_init__(self) -> None:
        require(self.epochs > 0, f"train.epochs={self.epochs} must be > 0")
        require(self.flops >= 0, f"train.flops={self.flops} must be >= 0")
        require(
            not (self.flops and self.steps),
            f"train.flops={self.flops:g} and train.steps={self.steps} both define the length of "
            "training; set one of them to 0",
        )
        for name in ("seed", "steps", "eval_every", "checkpoint_minutes"):
            require(getattr(self, name) >= 0, f"train.{name}={getattr(self, name)} must be >= 0")
        for name in ("log_every", "checkpoint_every", "keep", "max_bad_steps"):
            require(getattr(self, name) >= 1, f"train.{name}={getattr(self, name)} must be >= 1")


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation of a finished run."""

    splits: tuple[str, ...] = ("validation", "test")
    """Splits to evaluate."""
    batch: int = 0
    """Rows of a batch; 0 stands for `optim.batch`."""
    position: int = 1
    """Row of the post feature (`Feature.post`), e.g. the bucket of the display position, at which
    all impressions are scored, as in serving; 0 is the row where each was shown, which is measured
    in any case (`<split>/<action>/shown/..`)."""
    exclude_seen: bool = True
    """Whether the candidates of the next item (`model.next_item`) leave out earlier items of the
    member."""
    cold_below: int = 5
    """Items and members with fewer train impressions count as cold start."""

    def __post_init__(self) -> None:
        valid = ("train", "validation", "test")
        for name in ("batch", "cold_below", "position"):
            require(getattr(self, name) >= 0, f"eval.{name}={getattr(self, name)} must be >= 0")
        unknown = [s for s in self.splits if s not in valid]
        require(not unknown, f"eval.splits has unknown names {unknown}; choose from {valid}")


@dataclass(frozen=True)
class TrackConfig:
    """W&B tracking, which mirrors the `metrics.jsonl` of the run directory."""

    wandb: Literal["auto", "online", "offline", "off"] = "auto"
    """Mode. `auto` is the value of WANDB_MODE, else online if there is an API key, else offline."""
    project: str = ""
    """Project; "" stands for WANDB_PROJECT, else `ligr`."""
    entity: str = ""
    """Entity; "" stands for WANDB_ENTITY."""
    group: str = ""
    """Group; "" stands for WANDB_RUN_GROUP."""


@dataclass(frozen=True)
class Config:
    """Configuration of a run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    track: TrackConfig = field(default_factory=TrackConfig)
