"""Verifiers that look for something definite: classes, objects, text."""
