"""Children that do what must not be trusted: a stranger's file is opened in one that can neither write, nor reach the
network, nor take all memory or time. Knows nothing of models."""
