"""Checkpoints by orbax, with what orbax does not do: notice that a file has changed on disk.

A digest of every leaf is saved beside the state and compared on restore; a step that does not
match, or cannot be read, is reported and the one before it is taken.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import xxhash


class Checkpoints:
    """The newest `keep` checkpoints of a run, in DIRECTORY/<step>."""

    def __init__(self, directory: Path, keep: int, say: Callable[[str], None] = print) -> None:
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(directory.absolute(), options=options)
        self._directory, self._say = directory, say

    def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
        """Saves in the background; a process killed meanwhile leaves the earlier steps intact."""
        if step in self._manager.all_steps():
            return
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            meta=ocp.args.JsonSave({"meta": meta, "leaves": _describe(state)}),
        )
        self._manager.save(step, args=args)

    def restore(self, like: Any) -> tuple[Any, dict[str, Any]] | None:
        """The newest intact state, on the devices of `like`, and its meta; None if there is none.

        like: a state, or its `jax.ShapeDtypeStruct`s with shardings.
        """
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                restored = self._manager.restore(
                    step,
                    args=ocp.args.Composite(
                        state=ocp.args.StandardRestore(target), meta=ocp.args.JsonRestore()
                    ),
                )
                wrong = _differences(restored["meta"]["leaves"], _describe(restored["state"]))
            except Exception as e:  # orbax raises whatever its readers raise on a damaged file
                wrong = [f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"]
            if not wrong:
                return restored["state"], restored["meta"]["meta"]
            self._say(f"checkpoint {step} is damaged ({wrong[0]}); going back to the one before")
            self._manager.delete(step)  # or the manager would refuse to save this step again
        return None

    def wait(self) -> None:
        """Returns when all saves are on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()


def _describe(state: Any) -> dict[str, list[Any]]:
    """Per leaf: digest of its bytes, shape, dtype."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    described = {}
    for path, leaf in leaves:
        array = np.ascontiguousarray(jax.device_get(leaf))
        digest = xxhash.xxh3_64_hexdigest(array.view(np.uint8).reshape(-1).data)
        described[jax.tree_util.keystr(path)] = [digest, list(array.shape), str(array.dtype)]
    return described


def _differences(saved: dict[str, list[Any]], found: dict[str, list[Any]]) -> list[str]:
    return [
        f"{k} differs from what was saved" for k in saved | found if saved.get(k) != found.get(k)
    ]
