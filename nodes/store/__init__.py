"""What is kept on disk: journals, fingerprints, thumbnails."""
