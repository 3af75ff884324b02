"""The verifier that asks a chat-completions endpoint."""
