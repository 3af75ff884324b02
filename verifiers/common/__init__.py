"""What verifiers share: the protocol, preprocessing, features."""
