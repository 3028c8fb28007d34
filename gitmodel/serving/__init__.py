"""The server, in TensorFlow Serving's words: a source says what should be served, a manager loads before it unloads,
loaders do the expensive work, and front ends convert types for one dataplane. Never imports workflows."""
