"""Verifiers on vision-language models."""
