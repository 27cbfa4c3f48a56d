"""What the networks are built of: embedding, encoder, decoder, heads and their layers."""
