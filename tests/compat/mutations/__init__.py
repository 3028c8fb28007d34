"""Systematic mutations of the world's models, each with the verdict it must get; ``python -m tests.compat.mutations``."""

from tests.compat.mutations import behaviour, beyond, bundles, inputs, outputs, silent
from tests.compat.mutations.truth import MUTATIONS

__all__ = ["MUTATIONS", "behaviour", "beyond", "bundles", "inputs", "outputs", "silent"]
