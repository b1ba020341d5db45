"""A run from its start to its record: the job, the source model, the trials of `auto`, the recorder."""
