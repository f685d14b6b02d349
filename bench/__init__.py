"""Speed, as ratios against the smallest possible program, measured in the same run."""
