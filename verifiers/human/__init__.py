"""A person as a verifier."""
