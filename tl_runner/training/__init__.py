"""The loop, its optimizers, random views, and the choice of a checkpoint without target labels."""
