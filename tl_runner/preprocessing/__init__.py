"""What a user has – image files, tables – as the inputs of a run's model, by the run's record alone."""
