"""XLA's flags for tests: simulated devices, and code that is quick to compile."""

from importlib.metadata import version

# Laws hold for slow code as well: a training step compiles three times as fast.
_QUICKLY = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    # One module per program: modules that compile in parallel cost a fifth more processor time, and
    # both cores are busy.
    "--xla_cpu_parallel_codegen_split_count=1",
]
if version("jaxlib") < "0.11":  # the older emitters, quicker still, which later ones do not have
    _QUICKLY.append("--xla_cpu_use_fusion_emitters=false")


def flags(devices: int) -> str:
    """XLA_FLAGS of a process with so many simulated devices."""
    return " ".join([f"--xla_force_host_platform_device_count={devices}", *_QUICKLY])
