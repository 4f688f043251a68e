"""Train a small student to give what its teacher gives."""
