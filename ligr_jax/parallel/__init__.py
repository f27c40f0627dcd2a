"""Devices, meshes and processes of a run: settings, sharding, start and end, traffic."""

from typing import TYPE_CHECKING

from ligr_jax.lazy import lazy_exports

if TYPE_CHECKING:
    from ligr_jax.parallel.cluster import expects_peers as expects_peers
    from ligr_jax.parallel.cluster import without_cluster as without_cluster
    from ligr_jax.parallel.host import use_all_cores as use_all_cores
    from ligr_jax.parallel.host import use_fast_allocator as use_fast_allocator
    from ligr_jax.parallel.mesh import batch_sharding as batch_sharding
    from ligr_jax.parallel.mesh import make_mesh as make_mesh
    from ligr_jax.parallel.mesh import replicated as replicated
    from ligr_jax.parallel.mesh import shard_batch as shard_batch
    from ligr_jax.parallel.mesh import shardings as shardings
    from ligr_jax.parallel.mesh import to_mesh as to_mesh
    from ligr_jax.parallel.peers import Peers as Peers
    from ligr_jax.parallel.peers import ending_together as ending_together
    from ligr_jax.parallel.probe import Devices as Devices
    from ligr_jax.parallel.probe import ProbeError as ProbeError
    from ligr_jax.parallel.probe import describe_devices as describe_devices
    from ligr_jax.parallel.processes import all_gather as all_gather
    from ligr_jax.parallel.processes import broadcast_from_first as broadcast_from_first
    from ligr_jax.parallel.processes import gather_texts as gather_texts
    from ligr_jax.parallel.processes import is_first as is_first
    from ligr_jax.parallel.processes import is_first_of_host as is_first_of_host
    from ligr_jax.parallel.processes import join_processes as join_processes
    from ligr_jax.parallel.processes import local_rows as local_rows
    from ligr_jax.parallel.processes import processes_of_host as processes_of_host
    from ligr_jax.parallel.processes import ready as ready
    from ligr_jax.parallel.processes import stop_agreed as stop_agreed
    from ligr_jax.parallel.rendezvous import PeerMissing as PeerMissing
    from ligr_jax.parallel.rendezvous import WrongCluster as WrongCluster
    from ligr_jax.parallel.rendezvous import wait_for_all as wait_for_all
    from ligr_jax.parallel.traffic import Collective as Collective
    from ligr_jax.parallel.traffic import collectives as collectives
else:
    __all__, __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "Collective": "traffic",
            "Devices": "probe",
            "PeerMissing": "rendezvous",
            "Peers": "peers",
            "ProbeError": "probe",
            "WrongCluster": "rendezvous",
            "all_gather": "processes",
            "batch_sharding": "mesh",
            "broadcast_from_first": "processes",
            "collectives": "traffic",
            "describe_devices": "probe",
            "ending_together": "peers",
            "expects_peers": "cluster",
            "gather_texts": "processes",
            "is_first": "processes",
            "is_first_of_host": "processes",
            "processes_of_host": "processes",
            "join_processes": "processes",
            "local_rows": "processes",
            "make_mesh": "mesh",
            "ready": "processes",
            "replicated": "mesh",
            "shard_batch": "mesh",
            "shardings": "mesh",
            "stop_agreed": "processes",
            "to_mesh": "mesh",
            "use_all_cores": "host",
            "use_fast_allocator": "host",
            "wait_for_all": "rendezvous",
            "without_cluster": "cluster",
        },
    )
