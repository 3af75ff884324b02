"""Verifiers that are made of others."""
