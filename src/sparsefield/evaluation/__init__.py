"""Judging reconstructions: metrics, classical baselines, the protocol, reports."""
