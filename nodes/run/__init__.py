"""One search of a node, from its inputs to its outputs."""
