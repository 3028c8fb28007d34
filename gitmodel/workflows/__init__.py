"""One verb per module: a function over values that returns a result. Nothing here prints, or reads argv or the environment."""
