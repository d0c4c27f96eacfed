"""Planted models: every answer is known in closed form, so a method is right or wrong on them, never plausible."""
