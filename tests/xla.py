"""XLA's flags for tests: simulated devices, and code that is quick to compile."""

from importlib.metadata import version

# Laws hold for slow code as well: a training step compiles three times as fast.
_QUICKLY = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
if version("jaxlib") < "0.11":  # the older emitters, quicker still, which later ones do not have
    _QUICKLY.append("--xla_cpu_use_fusion_emitters=false")


def flags(devices: int) -> str:
    """XLA_FLAGS of a process with so many simulated devices."""
    return " ".join([f"--xla_force_host_platform_device_count={devices}", *_QUICKLY])
