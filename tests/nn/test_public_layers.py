"""Layers that follow their papers equal public implementations of them, with all gradients."""

from typing import Any

import jax.numpy as jnp
import pytest

from ligr_jax.config import WukongConfig
from ligr_jax.nn.cross import LowRankCross
from ligr_jax.nn.multitask import PLE, MMoE
from ligr_jax.nn.wukong import WukongLayer
from tests.batches import model_config
from tests.nn.fixtures import Arrays, check, load_fixture


def linear(params: Arrays, name: str) -> Arrays:
    return {"kernel": params[f"{name}/kernel"], "bias": params[f"{name}/bias"]}


def networks(params: Arrays, layers: list[list[str]]) -> Arrays:
    """Return the parameters of `Experts`, from the name of each layer of each expert."""
    stacked = {}
    for i, names in enumerate(layers):
        each = [linear(params, name) for name in names]
        stacked[f"layer_{i}"] = {k: jnp.stack([p[k] for p in each]) for k in ("kernel", "bias")}
    return {"networks": stacked}


def test_low_rank_crosses() -> None:
    fixture = load_fixture("dcnv2_cross")

    def crosses(inputs: Arrays, params: Arrays) -> Any:
        x0 = x = inputs["x"]
        for i in range(fixture.config["layers"]):
            p = {"v": {"kernel": params[f"layer{i}/v"]}, "u": linear(params, f"layer{i}/u")}
            x = LowRankCross(rank=fixture.config["rank"]).apply({"params": p}, x0, x)
        return x

    check(crosses, fixture)


def test_mmoe() -> None:
    fixture = load_fixture("mmoe")
    tasks, count = fixture.config["tasks"], fixture.config["experts"]

    def mmoe(inputs: Arrays, params: Arrays) -> Any:
        gates = jnp.concatenate([params[f"gate{t}/kernel"] for t in range(tasks)], axis=1)
        experts = networks(
            params, [[f"expert{e}/layer{i}" for e in range(count)] for i in range(2)]
        )
        p = {"gates": {"kernel": gates}, "experts": experts}
        module = MMoE(tasks=tasks, count=count, widths=fixture.config["widths"])
        return module.apply({"params": p}, inputs["x"])

    # Our gates have no bias; those of the fixture are zero.
    check(mmoe, fixture, ignored=[f"param/gate{t}/bias" for t in range(tasks)])


def test_ple() -> None:
    fixture = load_fixture("ple")
    c = fixture.config

    def ple(inputs: Arrays, params: Arrays) -> Any:
        p = {}
        for level in range(c["levels"]):
            counts = {f"task{t}": c["experts"] for t in range(c["tasks"])} | {"shared": c["shared"]}
            for part, count in counts.items():
                theirs = f"level{level}/{part}"
                ours = f"level_{level}_{part.replace('task', 'task_')}"
                p[f"{ours}_experts"] = networks(
                    params, [[f"{theirs}/expert{e}" for e in range(count)]]
                )
                if f"{theirs}/gate/kernel" in params:
                    p[f"{ours}_gate"] = {"kernel": params[f"{theirs}/gate/kernel"]}
        module = PLE(
            tasks=c["tasks"],
            count=c["experts"],
            shared=c["shared"],
            widths=c["widths"],
            levels=c["levels"],
        )
        return module.apply({"params": p}, inputs["x"])

    check(ple, fixture, ignored=[n for n in fixture.gradients if n.endswith("gate/bias")])


@pytest.mark.parametrize("name", ["wukong_layer", "wukong_layer_projected"])
def test_wukong(name: str) -> None:
    fixture = load_fixture(name)
    c = fixture.config
    wukong = WukongConfig(
        rank=c["rank"],
        mlp=tuple(width // c["D"] for width in c["mlp"]),
        fm_outputs=c["fmb"],
        compress_outputs=c["lcb"],
    )
    module = WukongLayer(model_config(kind="wukong", width=c["D"], set_depth=0, wukong=wukong))

    def layer(inputs: Arrays, params: Arrays) -> Any:
        p = {n: {"kernel": params[n]} for n in ("fm", "compress", "residual") if n in params}
        for n in ("fm_norm", "norm"):
            p[n] = {"scale": params[f"{n}/gain"], "bias": params[f"{n}/bias"]}
        p |= {"mlp": {"layer_0": linear(params, "mlp")}, "mlp_out": linear(params, "mlp_out")}
        return module.apply({"params": p}, inputs["x"][None], True)[0]

    check(layer, fixture)
