"""The verifier nodes."""
