"""Pure mathematics on tensors: losses, distances, weights, scores without labels. Nothing here knows a run."""
