"""Sampler runs in lockstep: each run in its own greenlet, suspended at every model call."""
