"""Inside: what the Layers page shows below the open network, one question a file."""
