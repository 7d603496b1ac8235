"""What `lalm bench` runs: one invented workload through our training path, and through what one would use instead."""
