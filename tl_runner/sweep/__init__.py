"""Many runs: on this machine, in worker processes; and what launchers and sweepers of Hydra's need of ours."""
