"""Filters of generated data: each keeps a record or rejects it with a reason; `base` chains and counts them."""
