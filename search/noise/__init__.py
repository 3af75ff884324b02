"""Candidate noise: recipes, proposals, moves and seeds."""
