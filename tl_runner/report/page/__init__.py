"""The report as one HTML file, for people without the program: every figure is drawn from what the runs have kept."""
