"""The runtime: bundles, predictor, streams, tracking, results. No torch."""
