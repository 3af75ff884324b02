"""Choosing among the best candidates when a search is over."""
