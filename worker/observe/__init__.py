"""What happens comes in from every room; logs, metrics and probes leave."""
