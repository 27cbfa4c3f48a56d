"""Pretraining and fine-tuning: one loop, two tasks."""
