"""From requests to batches and back: pages, scheduling, and the loop that owns the runtime."""
