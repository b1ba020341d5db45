"""Trackers `name(record, **options) -> Tracker`: where a run's points are shown besides its own folder.

They are exporters: nothing is read back from them, and a run is the same with and without one.
"""
