"""What lies on disk: records and who a run is, checkpoints, cache, locks. Nothing here needs a model."""
