"""A finished run in use: load its model, predict, export."""
