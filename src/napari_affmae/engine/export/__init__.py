"""Models for other programs: packages that describe themselves."""
