"""Whole training steps lower for NVIDIA GPUs and TPUs on a machine that has neither."""

import re

import jax
import pytest

from ligr_jax.config import Config, override
from ligr_jax.data.unique_ids import UniqueIdMapper
from ligr_jax.ops.attention import dispatch
from ligr_jax.train.program import Program
from tests.batches import model_config, random_batch

pytestmark = pytest.mark.filterwarnings("ignore:The Pallas Triton backend:DeprecationWarning")
ROWS = 8
# Changes of LiGR, and whether its attention has a kernel: relative biases have none.
VARIANTS = {
    "one device": ([], True),
    "tables by columns, FSDP": (["mesh.data=2", "mesh.model=2", "mesh.fsdp=true"], True),
    "silu, remat, two micro-batches": (
        ["model.attention=silu", "model.remat=true", "optim.accumulate=2", "model.dtype=bfloat16"],
        True,
    ),
    "HSTU": (["model.kind=hstu", "model.position=relative_time", "model.set_depth=0"], False),
    "Wukong": (["model.kind=wukong", "model.set_depth=0"], False),
}


def lowered(platform: str, changes: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    """Return the training step as text, and the number of arrays of its state."""
    config = override(Config(model=model_config(depth=2, set_depth=1, unroll="no")), changes)
    config = override(config, ["data.seq_len=32", f"optim.batch={ROWS}"])
    program = Program(config, steps=10)
    batch = random_batch([[[2, 3], [4]]] * ROWS, 16)
    inputs = program.shard_batch(UniqueIdMapper(config.model, program.process.devices)(batch))
    state = program.abstract_state()
    step = jax.jit(program.make_step(), donate_argnums=0)
    monkeypatch.setattr(jax, "default_backend", lambda: {"cuda": "gpu"}.get(platform, platform))
    with jax.set_mesh(program.mesh):
        text = step.trace(state, inputs).lower(lowering_platforms=(platform,)).as_text()
    return text, len(jax.tree.leaves(state))


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_training_steps_lower_with_their_kernels_and_a_donated_state(
    platform: str, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes, has_kernel = VARIANTS[variant]
    text, arrays = lowered(platform, changes, monkeypatch)
    kernel = {"cuda": "__gpu$xla.gpu.triton", "tpu": "tpu_custom_call"}[platform]
    # Forward, dQ, and dK with dV, once in the scanned history blocks and once in set-wise ones.
    calls = len(re.findall(rf"custom_call @{re.escape(kernel)}\b", text))
    assert calls >= 6 if has_kernel else calls == 0
    donated = text.count("tf.aliasing_output") + text.count("jax.buffer_donor")
    assert donated == arrays
    assert "f64" not in text


def test_without_triton_the_step_for_cuda_runs_as_plain_xla(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dispatch.importlib.util, "find_spec", lambda name: None)
    dispatch._pallas_has_triton.cache_clear()
    try:
        text, _ = lowered("cuda", [], monkeypatch)
        assert "triton" not in text
        assert [r.message for r in caplog.records if "no Triton" in r.message] == [
            f"JAX {jax.__version__} has no Triton in Pallas: attention on GPUs runs as plain XLA "
            "(blocked), in linear memory but slower than the kernel"
        ]
        with pytest.raises(ValueError, match=r"use implementation=blocked, or JAX 0\.12"):
            lowered("cuda", ["model.implementation=gpu"], monkeypatch)
    finally:
        dispatch._pallas_has_triton.cache_clear()
