"""What happens to each request when a deployment serves many? Replayed event by event."""
