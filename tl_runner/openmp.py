"""How idle threads wait: they sleep soon, so that processes on a busy machine share its cores.

OpenMP and OpenBLAS let a thread without work spin for a while before it sleeps. Where threads outnumber cores, those
that spin take the time of those that have work. Sleeping has a cost, too: a thread that is woken for every small
loop made the default run slower by a third on idle cores. So threads of GNU's OpenMP spin for a short while.
The libraries read these variables once, when they are loaded: `tl_runner/__init__.py` sets them before torch and NumPy.
"""

from collections.abc import MutableMapping

SLEEP = {
    # OpenMP: GNU's (the Linux wheels of torch, whose MKL runs on it too, and of scikit-learn), LLVM's and Intel's
    # (torch on macOS, Windows and conda), where KMP_BLOCKTIME becomes 0, measured on Intel's 2026.2, unless it is set.
    "OMP_WAIT_POLICY": "PASSIVE",
    # OpenBLAS (the wheels of NumPy and SciPy), whose threads are its own: log2 of the cycles they spin, at least 4.
    "OPENBLAS_THREAD_TIMEOUT": "4",
}
# GNU's OpenMP takes this before the policy: turns of a loop that a thread spins. Of 0, 1,000, 2,000, 5,000, 20,000 and
# the library's own 300,000 the least that leaves an idle machine its speed; figures in docs/performance.md.
SPIN = {"GOMP_SPINCOUNT": "5000"}
INSTEAD = "KMP_LIBRARY"  # what Intel's OpenMP takes where both are set, with a warning of OMP_WAIT_POLICY


def let_threads_sleep(environ: MutableMapping[str, str]) -> None:
    """Set the variables that the user has not set; a policy of the user's is not overruled by a number of turns."""
    if "OMP_WAIT_POLICY" not in environ:
        for name, value in SPIN.items():
            environ.setdefault(name, value)
    for name, value in SLEEP.items():
        if name != "OMP_WAIT_POLICY" or INSTEAD not in environ:
            environ.setdefault(name, value)
