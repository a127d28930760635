"""edgequant's speed as ratios against peers, measured side by side on this machine: python -m bench."""
