"""Verifiers: what judges an image. Each turns images into one number per image, higher is better."""
