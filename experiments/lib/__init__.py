"""What the experiments share: results on disk, options, sweeps, comparisons with a paper."""
