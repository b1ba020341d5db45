"""One file per method or close family; read `mmd.py` for the pattern."""
