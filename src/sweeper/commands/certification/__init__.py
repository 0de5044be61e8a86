"""What ``sweeper certify`` does, step by step."""
