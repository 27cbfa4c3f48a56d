"""How well networks segment real images: methods, label budgets, seeds, and what they cost."""
