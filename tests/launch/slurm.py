"""A real SLURM on this machine: one node, two partitions, no authentication, loopback only."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.ports import free_port

_CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
SlurmctldPort={controller_port}
SlurmdPort={node_port}
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=60
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=60 State=UP
PartitionName=high Nodes={host} PriorityTier=10 PreemptMode=OFF State=UP
"""


class Cluster:
    """Starts and stops the two daemons of SLURM, and asks them.

    Attributes:
        environment: environment variables of its clients.
    """

    def __init__(self, directory: Path) -> None:
        for name in ("state", "spool"):
            (directory / name).mkdir()
        host = socket.gethostname().split(".")[0]
        config = directory / "slurm.conf"
        config.write_text(
            _CONFIG.format(
                host=host,
                directory=directory,
                controller_port=free_port(),
                node_port=free_port(),
            )
        )
        (directory / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        self.environment = {"SLURM_CONF": str(config)}
        self._directory = directory
        self._daemons = [
            self._start("slurmctld", "-D", "-c", "-i"),
            self._start("slurmd", "-D", "-N", host),
        ]
        self.wait_until(lambda: "idle" in self._try("sinfo", "-h", "-o", "%T"), 30)

    def ask(self, *command: str) -> str:
        """Run a client of SLURM and return what it prints."""
        return subprocess.run(
            command,
            env={**os.environ, **self.environment},
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout

    def queue(self) -> list[list[str]]:
        """Return job, state and reason of each array task that waits or runs."""
        lines = self.ask("squeue", "--array", "--noheader", "--format=%i|%T|%r").splitlines()
        return [line.split("|") for line in lines]

    def wait_until(self, holds: Callable[[], bool], seconds: float) -> None:
        """Wait for a condition.

        Meanwhile, jobs that SLURM holds back for two minutes after a requeue are released.
        """
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, (self.queue(), self._logs())
            for job, state, reason in self.queue():
                if (state, reason) == ("PENDING", "BeginTime"):
                    self.ask("scontrol", "update", f"JobId={job}", "StartTime=now")
            time.sleep(0.1)

    def preempt(self) -> None:
        """Preempt all jobs of the partition `low` by a job that needs the whole node."""
        command = ("--partition=high", "--exclusive", "--output=/dev/null", "--wrap=true")
        job = self.ask("sbatch", "--parsable", *command).strip()
        self.wait_until(lambda: job not in [row[0] for row in self.queue()], 100)

    def stop(self) -> None:
        """End the jobs and the daemons."""
        try:
            for job, *_ in self.queue():
                self.ask("scancel", job)
            self.wait_until(lambda: not self.queue(), 60)
        finally:
            self._end_daemons()

    def _end_daemons(self) -> None:
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            daemon.wait(30)

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            env={**os.environ, **self.environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def _try(self, *command: str) -> str:
        try:
            return self.ask(*command)
        except subprocess.CalledProcessError:  # the daemon does not answer yet
            return ""

    def _logs(self) -> Sequence[str]:
        return [
            path.read_text(errors="replace")[-2000:] for path in self._directory.glob("slurm*.log")
        ]


def require_slurm() -> None:
    """Skip a test where SLURM cannot run."""
    if not all(shutil.which(name) for name in ("slurmctld", "slurmd", "sbatch")):
        pytest.skip("no SLURM: apt-get install --no-install-recommends slurm-wlm")
    if os.geteuid() != 0:
        pytest.skip("slurmd needs root")
