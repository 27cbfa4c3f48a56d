"""The fine-tuning dock."""
