"""The devices of this machine, described by this process or by a short child process.

The runner of a sweep must not start an accelerator: on a GPU it would reserve the memory that its
children need, and on a TPU it would own the chips. It starts a child, `python -m
ligr_jax.parallel.probe DTYPE`, which prints one line of JSON and ends.
"""

import dataclasses
import functools
import json
import os
import subprocess
import sys

from ligr_jax.errors import LigrError
from ligr_jax.parallel.cluster import without_cluster

_LIMIT_S = 180  # a pod's TPU needs a minute to start


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices of one process.

    Attributes:
        backend: JAX's name of the platform: cpu, gpu, tpu.
        kind: JAX's name of a device, e.g. NVIDIA H200.
        count: Number of devices.
        peak: FLOP/s of one device for the requested type.
        memory: Bytes of one device that JAX may use; infinity if unknown.
    """

    backend: str
    kind: str
    count: int
    peak: float
    memory: float

    def of_one_job(self, jobs: int) -> "Devices":
        """Return the devices of one of several processes that train at the same time.

        Args:
            jobs: Number of processes. On a CPU they share the cores and the memory.
        """
        if self.backend == "cpu":
            return dataclasses.replace(self, memory=self.memory / jobs)
        return dataclasses.replace(self, count=max(1, self.count // jobs))


class ProbeError(LigrError):
    """JAX cannot start the devices of this machine."""


def describe_devices(dtype: str) -> Devices:
    """Start JAX in this process and return its devices.

    Args:
        dtype: Type for which the peak is given, e.g. bfloat16.
    """
    import jax

    from ligr_jax.cost.devices import device_memory, peak_flops

    return Devices(
        backend=jax.default_backend(),
        kind=jax.local_devices()[0].device_kind,
        count=jax.device_count(),
        peak=peak_flops(dtype),
        memory=device_memory(),
    )


@functools.cache
def probe(dtype: str) -> Devices:
    """Return the devices that `ligr train` would have on this machine, from a child process.

    Args:
        dtype: Type for which the peak is given, e.g. bfloat16.

    Raises:
        ProbeError: JAX cannot start in the child; the message has the last line of its output.
    """
    command = [sys.executable, "-m", "ligr_jax.parallel.probe", dtype]
    try:
        child = subprocess.run(
            command,
            env=without_cluster(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
        )
        if child.returncode == 0:
            return Devices(**json.loads(child.stdout.splitlines()[-1]))
        why = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
    except subprocess.TimeoutExpired:
        why = f"no answer within {_LIMIT_S} s; another process may hold the devices"
    platforms = os.environ.get("JAX_PLATFORMS")
    remedy = f"check JAX_PLATFORMS={platforms}" if platforms else "JAX_PLATFORMS=cpu trains without"
    raise ProbeError(f"cannot start JAX on this machine's devices: {why}; {remedy}")


def main() -> None:
    from ligr_jax.parallel.host import use_all_cores

    use_all_cores()
    print(json.dumps(dataclasses.asdict(describe_devices(sys.argv[1]))))


if __name__ == "__main__":
    main()
