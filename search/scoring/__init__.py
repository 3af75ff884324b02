"""From a verifier to scores: scorers, parts of verifiers, and kept pictures."""
