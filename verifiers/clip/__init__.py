"""Verifiers on CLIP and SigLIP."""
