"""Judging reconstructions: metrics, classical floors, the protocol, reports."""
