"""From a backbone's prediction to a flow: paths, conversions, objectives, source noise."""
