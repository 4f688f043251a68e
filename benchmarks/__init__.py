"""The measured claims: a harness, one file per competitor, results as JSON with machine and versions."""
