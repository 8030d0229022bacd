"""What the workers of a group are doing, from their `/metrics`: read, compared, shown."""
