"""``doctor``: what stands in the way, is left over, or is set up weakly, each with its mend. One module per kind of check."""
