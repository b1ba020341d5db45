"""hydra/launcher=submitit_slurm and submitit_local: the runs of a sweep as jobs of SLURM, by submitit."""

import os
import pickle
import signal
import subprocess
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

from tl_runner.engine.job import Job, Outcome
from tl_runner.errors import UserError
from tl_runner.sweep.launching import Launching, import_extra
from tl_runner.sweep.remote import RemoteJob, run_remotely

if TYPE_CHECKING:
    from tl_runner.report.sweep_progress import SweepProgress

# What squeue calls a job that will not run again; a preempted one may.
OVER = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "REVOKED", "TIMEOUT",
}  # fmt: skip
LATE = 3  # looks at a job that is over before its result is given up: shared folders show files late
ARRAY = 1000  # jobs in one array: what SLURM takes unless a cluster says otherwise
TAIL = 15  # lines of a lost job's log that are shown
COMMON = {"timeout_min", "cpus_per_task", "gpus_per_node", "mem_gb", "name", "stderr_to_stdout"}  # to all engines


@dataclass
class LocalOptions:
    """All runs at once on this machine, each in a process of its own: to try out what SLURM will do."""

    cluster: str = "local"
    submitit_folder: str = "${hydra.sweep.dir}/.submitit"
    name: str = "tl-run"
    timeout_min: int = 60  # of a job; its run leaves a checkpoint before
    cpus_per_task: int = 1
    gpus_per_node: int | None = None
    mem_gb: int | None = None
    setup: list[str] | None = None  # commands before, such as [module load cuda]
    stderr_to_stdout: bool = True
    _target_: str = "hydra_plugins.tl_runner.submitit.Submitit"


@dataclass
class Slurm(LocalOptions):
    """Every run is a job of an array. The names are those of Hydra's own plugin for SLURM, and of `sbatch`."""

    cluster: str = "slurm"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    comment: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    gres: str | None = None
    cpus_per_gpu: int | None = None
    gpus_per_task: int | None = None
    mem_per_gpu: str | None = None
    mem_per_cpu: str | None = None
    signal_delay_s: int = 120  # before its time is up, a job is asked to write a checkpoint
    max_num_timeout: int = 0  # how often a job whose time was up is requeued; its run resumes
    array_parallelism: int = 256  # jobs at once
    additional_parameters: dict[str, Any] = field(default_factory=dict)  # others of sbatch


class Submitit(Launching):
    """Every run is a job."""

    def __init__(self, cluster: str, submitit_folder: str, max_num_timeout: int = 0, **options: Any):
        self.cluster, self.folder, self.max_num_timeout = cluster, submitit_folder, max_num_timeout
        plain = {name: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v for name, v in options.items()}
        self.options = {name if name in COMMON else f"{cluster}_{name}": value for name, value in plain.items()}
        self.threads = options.get("cpus_per_task") or 1

    def run_jobs(self, runs: Sequence[Job], shown: "SweepProgress") -> Iterator[Outcome]:
        backend = Jobs(self.cluster, self.folder, self.max_num_timeout, self.options)
        return run_remotely(runs, backend, self.threads, self.command.full_error, self.stopping, shown.under_way)


class Requeueable:
    """A job for submitit. Because it has a `checkpoint` method, it may be requeued when its time is up."""

    def __init__(self, remote_job: RemoteJob):
        self.remote_job = remote_job

    def __call__(self) -> Outcome:
        from submitit.core.utils import UncompletedJobError

        again = signal.getsignal(signal.SIGUSR2)
        outcome, came = self.remote_job.make()
        if outcome.what != "stopped" or signal.SIGUSR2 not in came or not callable(again):
            return outcome
        try:
            again(signal.SIGUSR2, None)  # queues it and ends this process, or raises if that was done too often
        except UncompletedJobError:
            return outcome._replace(
                message="it reached its time limit (hydra.launcher.timeout_min); its checkpoint is kept"
            )
        return outcome

    def checkpoint(self) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Jobs:
    """The backend: sends jobs to submitit."""

    def __init__(self, cluster: str, folder: str, max_num_timeout: int, options: dict[str, Any]):
        self.cluster, self.folder, self.options = cluster, folder, options
        self.retries = {} if cluster == "local" else {f"{cluster}_max_num_timeout": max_num_timeout}
        self.here = cluster == "local"
        self.pause = 0.5 if self.here else 5.0
        self._looks = Counter[Any]()

    def send(self, remote_jobs: Sequence[RemoteJob]) -> list[Any]:
        submitit = import_extra("submitit", "slurm")
        handles = []
        try:
            executor = submitit.AutoExecutor(self.folder, self.cluster, **self.retries)
            executor.update_parameters(**self.options)
            for start in range(0, len(remote_jobs), ARRAY):
                with executor.batch():
                    handles += [executor.submit(Requeueable(p)) for p in remote_jobs[start : start + ARRAY]]
        except RuntimeError as error:  # there is no SLURM here, or it doesn't take the jobs
            raise UserError(f"hydra/launcher=submitit_{self.cluster}: {str(error).strip()}") from error
        for script in handles[0].paths.folder.glob("*_submission.sh"):
            script.unlink()  # SLURM has a copy of its own
        return handles

    def over(self, handles: Collection[Any]) -> Iterator[tuple[Any, Outcome | str]]:
        alive = _here(handles) if self.here else _queued(handles)  # before their results: they may end in between
        for handle in handles:
            if handle.paths.result_pickle.exists():
                brought, result = pickle.loads(handle.paths.result_pickle.read_bytes())
                if brought == "success":  # else its log may tell more
                    for file in handle.paths.folder.glob(f"{handle.job_id}_*"):
                        file.unlink(missing_ok=True)
                yield handle, result
            elif handle in alive:
                self._looks[handle] = 0
            else:
                self._looks[handle] += 1
                if self._looks[handle] > LATE:
                    yield handle, f"its process exited without reporting an error\n{_tail(handle)}"

    def stop(self, handles: Collection[Any]) -> None:
        for handle in handles:
            if self.here:
                os.kill(int(handle.job_id), signal.SIGTERM)  # submitit's way kills after a second
            else:
                handle.cancel(check=False)


def _here(handles: Collection[Any]) -> Collection[Any]:
    """The jobs of this machine that are running."""
    return {handle for handle in handles if not handle.done()}


def _queued(handles: Collection[Any]) -> Collection[Any]:
    """The jobs that SLURM runs or will run; all of them while it doesn't answer.

    Submitit asks sacct, which needs a database that not every SLURM has, and asks ever more seldom: a job that was
    cancelled is missed for up to ten minutes, or for ever.
    """
    words = ["squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}", "--format=%i %T"]
    asked = subprocess.run(words, capture_output=True, text=True, check=False)
    if asked.returncode:
        return handles
    states = dict(line.split(maxsplit=1) for line in asked.stdout.splitlines())
    return {handle for handle in handles if states.get(handle.job_id, "COMPLETED") not in OVER}


def _tail(handle: Any) -> str:
    """The end of what the job wrote, and where the rest is."""
    logs = [path for path in (handle.paths.stderr, handle.paths.stdout) if path.exists()]
    told = [f"{path}:\n" + "\n".join(path.read_text(errors="replace").splitlines()[-TAIL:]) for path in logs]
    return "\n".join(told) or f"and has left no log in {handle.paths.folder}"


def register() -> None:
    """Make both launchers mean ours, after Hydra has imported its plugins: some of them may be named so too."""
    Plugins.instance().register(Submitit)
    for name, options in (("submitit_local", LocalOptions), ("submitit_slurm", Slurm)):
        ConfigStore.instance().store(name, options, group="hydra/launcher", provider="tl_runner")
