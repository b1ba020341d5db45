"""Many runs: in worker processes, on clusters, and in searches; our launchers and sweepers for Hydra."""
