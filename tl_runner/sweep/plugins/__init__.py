"""Launchers and sweepers for Hydra, which finds them only in a package of the name hydra_plugins."""
