"""The .mnn format: what its bytes mean (`schema`), and what reads and repairs them."""
