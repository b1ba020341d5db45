"""What a command prints that refuses."""

import subprocess


def told(result: subprocess.CompletedProcess[str]) -> str:
    """What a refused command says: one message, no traceback."""
    assert result.returncode == 1, result.stdout + result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert result.stderr.count("error: ") == 1
    return result.stderr
