"""Networks: backbones, their weights, heads, features, BatchNorm by domain, learning rates by parameter."""
