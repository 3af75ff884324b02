"""Verifiers that measure pixels or compare features."""
