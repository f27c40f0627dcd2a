"""Kubernetes: a JobSet, or a TrainJob of Kubeflow, for each job."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from ligr_jax.errors import UsageError
from ligr_jax.launch.client import run_client
from ligr_jax.launch.manifest import Job, Launch
from ligr_jax.launch.target import Target

LABEL, OWNER = "ligr-jax/launch", "ligr-jax/out"
_PORT = 8476  # of the coordinator; each pod has its own address


class _Kubernetes(Target):
    """Objects of one kind, which the label of their launch selects.

    Attributes:
        resource: name of the kind for kubectl, with its API group.
        ended: types of the conditions that end an object.
    """

    client = "kubectl"
    remedy = "install kubectl and choose a context"
    accepts = ("namespace", "queue", "image", "accelerator", "cpus")
    needs = ("image",)
    resource: ClassVar[str]
    ended: ClassVar[tuple[str, ...]]

    def values(self) -> dict[str, Any]:
        """Return the values of the template that are particular to this target."""
        options = self.options
        limits = {}
        if options.devices:
            limits["google.com/tpu" if options.is_tpu else "nvidia.com/gpu"] = str(options.devices)
        cpus = {"cpu": str(options.cpus)} if options.cpus else {}
        return {
            "port": _PORT,
            "node_selector": _node_selector(options.accelerator),
            "resources": {**cpus, **limits},
            "limits": limits,
        }

    def states(self, launch: Launch) -> dict[str, str]:
        """Ask the scheduler for the jobs of a launch that wait or run."""
        return {
            name: "active"
            for name, item in self._items(launch).items()
            if not _has_condition(item, self.ended)
        }

    def commands(self, launch: Launch, jobs: Sequence[Job]) -> list[list[str]]:
        """Return the commands that submit jobs; objects of earlier attempts are removed first."""
        kubectl = ["kubectl", f"--namespace={self.options.namespace}"]
        names = [job.name for job in jobs]
        files = [f"--filename={self.file_of(job)}" for job in jobs]
        return [
            [*kubectl, "delete", self.resource, "--ignore-not-found", *names],
            [*kubectl, "create", *files],
        ]

    def _items(self, launch: Launch) -> dict[str, Mapping[str, Any]]:
        """Return the objects of a launch by name.

        Raises:
            LaunchConflict: an object belongs to another sweep.
        """
        command = [
            "kubectl",
            f"--namespace={self.options.namespace}",
            "get",
            self.resource,
            f"--selector={LABEL}={launch.name}",
            "--output=json",
        ]
        items = {}
        for item in json.loads(run_client(command))["items"]:
            name = item["metadata"]["name"]
            owner = item["metadata"].get("annotations", {}).get(OWNER, "unknown")
            if owner != launch.out:
                raise self.conflict(name, owner)
            items[name] = item
        return items


class JobSet(_Kubernetes):
    """A JobSet for each job."""

    template = "jobset.yaml"
    resource = "jobsets.jobset.x-k8s.io"
    ended = ("Completed", "Failed")


class TrainJob(_Kubernetes):
    """A TrainJob for each job, with the runtime `jax-distributed`."""

    template = "trainjob.yaml"
    resource = "trainjobs.trainer.kubeflow.org"
    ended = ("Complete", "Failed")


def _has_condition(item: Mapping[str, Any], types: Sequence[str]) -> bool:
    conditions = item.get("status", {}).get("conditions", ())
    return any(c["type"] in types and c["status"] == "True" for c in conditions)


def _node_selector(accelerator: str) -> dict[str, str]:
    """Return the labels of nodes with an accelerator.

    Args:
        accelerator: "TYPE:TOPOLOGY" of a TPU slice on GKE, or a product as NVIDIA's GPU feature
            discovery names it, or "".

    Raises:
        UsageError: a TPU has no topology.
    """
    if not accelerator:
        return {}
    if not accelerator.startswith("tpu"):
        return {"nvidia.com/gpu.product": accelerator}
    kind, _, topology = accelerator.partition(":")
    if not topology:
        raise UsageError(
            f"--accelerator {accelerator}: a TPU needs a topology, e.g. tpu-v6e-slice:2x4"
        )
    return {
        "cloud.google.com/gke-tpu-accelerator": kind,
        "cloud.google.com/gke-tpu-topology": topology,
    }
