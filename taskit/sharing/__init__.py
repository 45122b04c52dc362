"""What may leave this machine: an adapter with its card, pushed to the Hub."""
