"""The data and the protocols that every other package of the search builds on."""
