"""A sweep in a process of its own: wait for what it leaves, and read it."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def wait_until(there: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    while not there():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)


def read_runs(folder: Path) -> dict[str, dict[str, Any]]:
    return {file.parent.name: json.loads(file.read_text()) for file in folder.glob("outputs/runs/*/*/run.json")}
