"""Laws of the configuration: names, types, combinations and digests."""

import dataclasses
import itertools
import json
import re
from pathlib import Path

import pytest

from ligr_jax.config import (
    PLACEMENTS,
    RENAMED_FIELDS,
    RENAMED_VALUES,
    Config,
    ConfigError,
    Feature,
    ModelConfig,
    TableShape,
    config_from_json,
    config_to_json,
    difference,
    digest,
    flatten,
    join_list,
    override,
    value_text,
)
from ligr_jax.config.nearest import _SYNONYMS
from ligr_jax.runs.directory import load_config

FEATURES = {
    "item_id": Feature(rows=100),
    "tag": Feature(rows=9, width=4),
    "dwell": Feature("bucket", rows=17, outcome=True),
    "seen": Feature(rows=100, bag="sum", bag_size=8, table="item_id"),
}
BASE = Config(model=ModelConfig(features=FEATURES, actions=("click", "like"), prior=(0.2, 0.1)))


def test_a_configuration_survives_json() -> None:
    for config in (Config(), BASE):
        assert config_from_json(config_to_json(config)) == config
        assert digest(config_from_json(config_to_json(config))) == digest(config)


def test_every_flat_name_can_be_overridden_by_its_own_value() -> None:
    flat = flatten(BASE)
    assert flat["model.features.tag.rows"] == 9
    assert flat["optim.dense_lr"] == 1e-3
    assert override(BASE, [f"{k}={value_text(v)}" for k, v in flat.items()]) == BASE


ODD = ("a/b", "a", "a.rows", "a.b.c", "c.d", "e f", "g,h", "i=j", "i", "a.rows=9", "k:l", "größe")
ODD += ('say "so"', '"', "x+y", "y", "x", "rows", "-n", "n;m", "model.depth")


def test_names_with_any_character_can_be_configured() -> None:
    features = {name: Feature(rows=10 + k) for k, name in enumerate(ODD)}
    prior = tuple(0.01 * (k + 1) for k in range(len(ODD)))
    base = Config(model=ModelConfig(features=features, actions=ODD, prior=prior))
    written = [f"{k}={value_text(v)}" for k, v in flatten(base).items()]
    assert override(base, written) == base
    for k, name in enumerate(ODD):
        changed = override(base, [f"model.features.{name}.rows=5"])
        assert changed.model.features[name].rows == 5
        assert difference(base, changed) == {f"model.features.{name}.rows": (10 + k, 5)}
    for some in (ODD[:3], ODD[::-2], ("g,h", "x+y")):
        few = override(base, [f"model.features={join_list(some)}"])
        assert set(few.model.features) == set(some)
        few = override(base, [f"model.actions={join_list(some)}"])
        assert few.model.actions == some
    few = override(base, ["model.actions=y,x+y,x", "model.head.groups=x,x+y+y"])
    assert few.model.groups == ((2,), (1, 0))
    with pytest.raises(ConfigError, match=r"unknown name 'model.features.a.b.rows'"):
        override(base, ["model.features.a.b.rows=5"])


def test_chosen_actions_keep_their_base_rates() -> None:
    rates = {"click": 0.2, "like": 0.1}
    for actions in ("like", "like,click", "click"):
        model = override(BASE, [f"model.actions={actions}"]).model
        assert model.prior == tuple(rates[a] for a in model.actions)
    given = override(BASE, ["model.prior=0.3", "model.actions=like"]).model
    assert (given.actions, given.prior) == (("like",), (0.3,))
    with pytest.raises(ConfigError, match=r"model.prior=0.3,0.2 has 2 rates for 1 model.actions"):
        override(BASE, ["model.prior=0.3,0.2", "model.actions=like"])
    with pytest.raises(ConfigError, match=r"model.actions=like,like: \['like'\] more than once"):
        override(BASE, ["model.actions=like,like"])


def test_values_are_read_by_the_type_of_their_field() -> None:
    changed = override(
        BASE,
        [
            "--model.depth=1e1",
            "model.remat=True",
            "model.actions=like",
            "model.prior=5e-2",
            "optim.clip=2",
            "data.dir=/a=b",
            "model.features.tag.lookup=direct",
            "eval.splits=test,validation",
        ],
    )
    model = changed.model
    assert (model.depth, model.remat, model.actions, model.prior) == (10, True, ("like",), (0.05,))
    assert isinstance(changed.optim.clip, float)
    assert changed.data.dir == "/a=b"
    assert model.features["tag"] == dataclasses.replace(FEATURES["tag"], lookup="direct")
    assert changed.eval.splits == ("test", "validation")
    assert override(BASE, ["model.features=dwell,tag"]).model.features == {
        k: FEATURES[k] for k in ("dwell", "tag")
    }
    assert BASE.model.depth == 2  # untouched


def test_the_order_of_assignments_does_not_matter() -> None:
    """Even if an intermediate combination is impossible, or a removed entry is assigned."""
    together = ["model.width=66", "model.heads=3", "model.features=item_id,tag"]
    together += ["model.features.tag.rows=5", "model.features.dwell.rows=6"]
    results = [override(BASE, order) for order in itertools.permutations(together)]
    assert all(r == results[0] for r in results)
    assert results[0].model.features["tag"].rows == 5
    assert list(results[0].model.features) == ["item_id", "tag"]


@pytest.mark.parametrize(
    ("assignment", "nearest"),
    [
        ("model.dept=4", "model.depth"),
        ("depth=4", "model.depth"),
        ("optim.dense_rl=1", "optim.dense_lr"),
        ("model.features.tag.row=4", "model.features.tag.rows"),
        ("model.features.tags.rows=4", "model.features.tag.rows"),
        ("model.depth.more=1", "model.depth"),
        ("train.batch=4", "optim.batch"),
    ],
)
def test_an_unknown_name_shows_the_nearest(assignment: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=rf"unknown name '{assignment[:-2]}'.*{nearest}\b"):
        override(BASE, [assignment])


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("model.depth", "is not name=value, e.g. model.depth=4"),
        ("model.depth=two", "model.depth=two: expected a whole number"),
        ("model.depth=1.5", "model.depth=1.5: expected a whole number"),
        ("model.depth=inf", "model.depth=inf: expected a whole number"),
        ("model.depth=", "model.depth=: expected a whole number"),
        ("optim.dense_lr=fast", "optim.dense_lr=fast: expected a number"),
        ("model.remat=maybe", "model.remat=maybe: expected true or false"),
        ("model.gate=open", "model.gate=open: choose one of sigmoid, cadet, both, none"),
        ("model.features.tag.bag=max", "bag=max: choose one of '', sum, mean"),
        ("model.prior=0.1,x", "model.prior=x: expected a number"),
        ("model.features=item_id,colour", r"no \['colour'\]; choose from \['item_id', 'tag'"),
        ("model=4", "model is a group of fields"),
    ],
)
def test_a_value_of_a_wrong_type_is_refused_with_the_expected_type(
    assignment: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        override(BASE, [assignment])


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["model.width=65"], "model.width=65 is not divisible by model.heads=2; change one"),
        (["model.heads=0"], "model.heads=0 must be >= 1"),
        (["model.actions="], "model.actions is empty"),
        (["model.prior=0.1"], "model.prior=0.1 has 1 rates for 2 model.actions"),
        (["model.prior=0.1,1"], r"model.prior=\(0.1, 1.0\) must be inside \(0, 1\)"),
        (["model.dropout=1"], r"model.dropout=1.0 must be in \[0, 1\)"),
        (["model.ffn_factor=0"], "model.ffn_factor=0.0 must be > 0"),
        (["model.depth=-1"], "model.depth=-1 must be >= 0"),
        (["model.depth=0", "model.set_depth=0"], "leave no layer"),
        (["model.features.tag.rows=1"], r"needs rows in 2..2\^31-1, got rows=1"),
        (["model.features.tag.kind=vector", "model.features.tag.width=0"], "width = the length"),
        (["model.features.tag.lookup=qr", "model.features.tag.rows=2"], "got rows=2"),
        (["model.features.dwell.lookup=qr"], "for categorical features, got kind=bucket"),
        (["model.features.seen.bag_size=0"], "bag=sum needs bag_size >= 1.*got bag_size=0"),
        (["model.features.dwell.bag=sum"], "bag=sum: a bucket feature has no ids to bag"),
        (
            ["model.features.tag.kind=vector", "model.features.tag.table=t"],
            "table=t: a vector feature has no table",
        ),
        (
            [f"model.features.{f}.lookup=qr" for f in ("item_id", "seen")]
            + ["model.features.seen.bag=mean"],
            "which bag=mean would average; set bag=sum or lookup=hash",
        ),
        (
            ["model.features.seen.rows=99"],
            "features.seen and model.features.item_id share the table 'item_id' but have rows=99 "
            "and 100; make them equal, or change model.features.seen.table",
        ),
        (["model.features.seen.width=8"], "share the table 'item_id' but have width=8 and 32"),
        (["model.features.seen.lookup=direct"], "but have lookup=direct and hash"),
        (
            ["model.features.dwell.table=item_id", "model.features.dwell.rows=100"],
            "'item_id' but have kind=bucket and categorical",
        ),
        (["data.seq_len=7"], "data.seq_len=7 must be even"),
        (["data.seq_len=2"], "data.seq_len=2 must be even and >= 4"),
        (["data.context=1"], r"data.context=1.0 must be in \[0, 1\)"),
        (["data.fraction=0"], r"data.fraction=0.0 must be in \(0, 1\]"),
        (["data.workers=-2"], "data.workers=-2 must be >= -1"),
        (["optim.batch=6", "optim.accumulate=4"], "batch=6 is not divisible by optim.accumulate=4"),
        (["optim.dense_lr=-1"], "optim.dense_lr=-1.0 must be >= 0"),
        (["optim.dense_lr=nan"], "optim.dense_lr=nan: expected a number .it must be finite"),
        (["optim.warmup=1"], r"optim.warmup=1.0 must be in \[0, 1\)"),
        (["train.epochs=0"], "train.epochs=0.0 must be > 0"),
        (["train.steps=-5"], "train.steps=-5 must be >= 0"),
        (["train.keep=0"], "train.keep=0 must be >= 1"),
        (["eval.splits=test,future"], r"eval.splits has unknown names \['future'\]; choose from"),
    ],
)
def test_an_impossible_combination_is_refused_with_its_values(
    assignments: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        override(BASE, assignments)


def test_the_digest_depends_only_on_fields_that_change_numbers() -> None:
    assert len(digest(BASE)) == 12
    kept = ("data.dir=/elsewhere", "data.workers=3", "track.wandb=off", "track.group=x")
    saving = ("train.log_every=7", "train.checkpoint_every=7", "train.checkpoint_minutes=7")
    for same in (*kept, *saving, "train.keep=7"):
        assert digest(override(BASE, [same])) == digest(BASE), same
        assert difference(BASE, override(BASE, [same])) == {}
    digests = {digest(BASE)}
    changes = ["model.depth=3", "model.remat=true", "data.digest=abc", "optim.batch=8"]
    changes += ["train.seed=1", "model.features.tag.rows=8", "model.features=tag,item_id"]
    changes += ["eval.cold_below=6", "model.actions=like,click"]
    for change in changes:
        changed = override(BASE, [change])
        assert difference(BASE, changed)
        digests.add(digest(changed))
    assert len(digests) == 1 + len(changes)


def test_the_digest_does_not_depend_on_the_order_of_features() -> None:
    backwards = dict(reversed(list(FEATURES.items())))
    turned = dataclasses.replace(BASE, model=dataclasses.replace(BASE.model, features=backwards))
    assert digest(turned) == digest(BASE)


def test_differences_have_both_values_and_absent_fields() -> None:
    changed = override(BASE, ["model.depth=5", "model.features=item_id,dwell,seen"])
    found = difference(BASE, changed)
    assert found["model.depth"] == (2, 5)
    assert found["model.features.tag.rows"] == (9, None)
    assert all(k == "model.depth" or k.startswith("model.features.tag.") for k in found)


def test_a_file_without_a_feature_s_later_fields_is_read() -> None:
    raw = json.loads(config_to_json(BASE))
    for feature in raw["model"]["features"].values():
        for later in ("bag", "bag_size", "table"):
            del feature[later]
    features = config_from_json(json.dumps(raw)).model.features
    assert features["tag"] == FEATURES["tag"]
    assert features["seen"] == Feature(rows=100)


def test_tables_are_shared_by_name() -> None:
    features = {**FEATURES, "rated": Feature(rows=100, table="item_id", width=32)}
    features["age"] = Feature("numeric")
    model = dataclasses.replace(BASE.model, features=features)
    assert list(model.tables.items()) == [
        ("dwell", TableShape(17, 32)),
        ("item_id", TableShape(100, 32)),
        ("tag", TableShape(9, 4)),
    ]
    assert [model.table_of(n) for n in ("item_id", "seen", "rated", "tag")] == ["item_id"] * 3 + [
        "tag"
    ]
    # A table can have a name that no feature has.
    ours = {n: dataclasses.replace(features[n], table="items") for n in ("item_id", "seen")}
    assert list(ModelConfig(features=ours).tables) == ["items"]
    assert [f.combine for f in features.values()] == ["", "", "", "sum", "", ""]
    assert Feature(rows=9, lookup="qr").combine == "sum"
    assert Feature(rows=9, bag="mean", bag_size=2).combine == "mean"


def test_a_file_with_a_field_of_another_release_is_refused() -> None:
    raw = json.loads(config_to_json(BASE))
    raw["optim"]["momentum"] = 0.9
    with pytest.raises(ConfigError, match=r"OptimConfig has no fields \['momentum'\]"):
        config_from_json(json.dumps(raw))


@pytest.mark.parametrize("placement", ["column", "auto,item_id:row", "a:b:table"])
def test_a_renamed_value_is_refused_with_the_current_one(placement: str) -> None:
    """On the command line and in sweep files, and in the config.json of a run directory."""
    refused = placement.split(",")[-1]
    message = re.escape(f"mesh.placement={refused}: this value has been renamed; write ")
    message += re.escape(f"mesh.placement={refused}_wise")
    with pytest.raises(ConfigError, match=message):
        override(BASE, [f"mesh.placement={placement}"])
    raw = json.loads(config_to_json(BASE))
    raw["mesh"]["placement"] = placement.split(",")
    with pytest.raises(ConfigError, match=message):
        config_from_json(json.dumps(raw))


def test_a_renamed_field_is_refused_with_the_current_one(tmp_path: Path) -> None:
    for earlier, current in RENAMED_FIELDS.items():
        message = re.escape(f"{earlier} has been renamed; write {current}")
        with pytest.raises(ConfigError, match=message):
            override(BASE, [f"{earlier}=1"])
        raw = json.loads(config_to_json(BASE))
        *groups, leaf = earlier.split(".")
        group = raw
        for name in groups:
            group = group[name]
        group[leaf] = group.pop(current.rpartition(".")[2])
        (tmp_path / "config.json").write_text(json.dumps(raw), encoding="utf-8")
        with pytest.raises(ConfigError, match=f'config.json: {message} there, .*"digest"'):
            load_config(tmp_path)


def test_renamed_names_are_not_in_use_and_their_replacements_are() -> None:
    current = flatten(Config())
    assert not RENAMED_FIELDS.keys() & current.keys()
    assert set(RENAMED_FIELDS.values()) | RENAMED_VALUES.keys() <= current.keys()
    assert set(RENAMED_VALUES["mesh.placement"].values()) <= set(PLACEMENTS)


@pytest.mark.parametrize(("width", "factor", "wanted"), [(64, 4, 256), (10, 1, 8), (20, 2.7, 56)])
def test_ffn_width_is_a_multiple_of_eight(width: int, factor: float, wanted: int) -> None:
    assert ModelConfig(width=width, ffn_factor=factor).ffn_width == wanted


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("lr", "nearest: optim.dense_lr, optim.table_lr"),
        ("learning-rate", "nearest: optim.dense_lr, optim.table_lr"),
        ("batch_size", "nearest: optim.batch"),
        ("optim.batch_size", "nearest: optim.batch"),
        ("epochs", "nearest: train.epochs"),
        ("layers", "nearest: model.depth"),
        ("seed", "nearest: train.seed"),
        ("width", "nearest: model.width"),
        ("dropout", "nearest: model.dropout"),
        ("model.detph", "nearest: model.depth"),
        ("drop", "nearest: model.dropout"),
        ("model.features.tag.row", "nearest: model.features.tag.rows"),
        ("zzz", "names begin with model, data, optim, mesh, train, eval, track and a dot"),
    ],
)
def test_an_unknown_name_shows_a_few_suggestions(word: str, names: str) -> None:
    with pytest.raises(ConfigError) as refused:
        override(BASE, [f"{word}=1"])
    text = str(refused.value)
    assert f"unknown name '{word}'; {names}" in text
    assert len(text) < 200


def test_synonyms_refer_to_existing_fields() -> None:
    assert _SYNONYMS.keys() <= flatten(Config()).keys()


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e400", "", "0x1p3", "1e10", "2147483648"])
def test_no_field_accepts_an_unusable_number(text: str) -> None:
    for name, value in flatten(BASE).items():
        if type(value) is float and text in ("1e10", "2147483648"):
            continue
        if type(value) in (int, float):
            with pytest.raises(ConfigError, match=re.escape(f"{name}={text}: expected a")):
                override(BASE, [f"{name}={text}"])
