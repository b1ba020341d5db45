"""A finished run in use: predictions of files, and its model as a file for other programs."""
