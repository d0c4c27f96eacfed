"""What training minimises, in nats per image."""
