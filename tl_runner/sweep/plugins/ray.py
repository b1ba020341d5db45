"""hydra/launcher=ray: the runs of a sweep as tasks of a Ray cluster."""

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf

from tl_runner.engine.job import Job, Outcome
from tl_runner.errors import UserError
from tl_runner.sweep.launching import Launching, import_extra
from tl_runner.sweep.remote import RemoteJob, run_remotely

if TYPE_CHECKING:
    from tl_runner.report.sweep_progress import SweepProgress

log = logging.getLogger(__name__)


@dataclass
class Arguments:
    """Of `ray.init`, and of `ray.remote` for each run."""

    # address: of a running cluster, HOST:PORT, or auto on one of its machines; local starts a Ray on this one.
    init: dict[str, Any] = field(default_factory=lambda: {"address": "local", "log_to_driver": False})
    # num_gpus may be a share: at 0.25, four runs are on one GPU.
    # max_retries: Ray must not restart a run that died; rerunning the command resumes it.
    remote: dict[str, Any] = field(default_factory=lambda: {"num_cpus": 1, "num_gpus": 0, "max_retries": 0})


@dataclass
class Options:
    """As Hydra's own plugin for Ray has them."""

    ray: Arguments = field(default_factory=Arguments)
    _target_: str = "hydra_plugins.tl_runner.ray.Ray"


class Ray(Launching):
    """Every run is a task."""

    def __init__(self, ray: DictConfig):
        self.options: Any = OmegaConf.to_container(ray, resolve=True)
        self.threads = max(1, int(self.options["remote"].get("num_cpus") or 1))

    def run_jobs(self, runs: Sequence[Job], shown: "SweepProgress") -> Iterator[Outcome]:
        backend = Cluster(**self.options)
        return run_remotely(runs, backend, self.threads, self.command.full_error, self.stopping, shown.under_way)


class Cluster:
    """The engine: what Ray does with parcels."""

    pause = 0.2

    def __init__(self, init: dict[str, Any], remote: dict[str, Any]):
        self.init, self.remote = init, remote

    def send(self, remote_jobs: Sequence[RemoteJob]) -> list[Any]:
        ray = import_extra("ray", "ray")
        if not ray.is_initialized():
            try:
                ray.init(**self.init)
            except (ConnectionError, RuntimeError, TypeError, ValueError) as error:
                raise UserError(f"no Ray by hydra.launcher.ray.init={self.init}: {error}") from error
        for name, resource in (("num_cpus", "CPU"), ("num_gpus", "GPU")):
            most = max(machine["Resources"].get(resource, 0) for machine in ray.nodes())
            if (self.remote.get(name) or 0) > most:
                log.warning("no machine of the cluster has %s=%s: runs wait for one", name, self.remote[name])
        make = ray.remote(**self.remote)(_make)
        return [make.options(name=remote_job.job.name).remote(remote_job) for remote_job in remote_jobs]

    def over(self, handles: Collection[Any]) -> Iterator[tuple[Any, Outcome | str]]:
        import ray
        from ray.exceptions import RayError

        ended, _ = ray.wait(list(handles), num_returns=len(handles), timeout=0)
        for handle in ended:
            try:
                yield handle, ray.get(handle)
            except RayError as error:
                yield handle, str(error)

    def stop(self, handles: Collection[Any]) -> None:
        import ray

        for handle in handles:
            ray.cancel(handle)


def _make(remote_job: RemoteJob) -> Outcome:
    outcome, _ = remote_job.make()
    return outcome


def register() -> None:
    """Make `hydra/launcher=ray` mean ours, after Hydra has imported its plugins: one of them may be named so too."""
    Plugins.instance().register(Ray)
    ConfigStore.instance().store("ray", Options, group="hydra/launcher", provider="tl_runner")
