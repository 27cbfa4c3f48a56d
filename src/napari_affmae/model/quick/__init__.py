"""A light head on features of a frozen network, which is trained within seconds."""
