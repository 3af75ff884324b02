"""The journal of a search on disk, and the session that answers from it."""
