"""One file per source of data: each holds functions `name(seed, **options) -> Drawn`."""
