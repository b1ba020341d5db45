"""One file per method, and beside them what several share; read `mmd.py` for the pattern."""
