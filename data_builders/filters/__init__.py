"""Filters of generated data: each keeps a record or rejects it with a reason; `base.run_filters` chains and counts them."""
