"""What is measured of a model: scores, how far apart the domains are, what the figures of a report need."""
