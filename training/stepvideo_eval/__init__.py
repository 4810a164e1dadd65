"""Judging what a model makes: adherence by classical vision, and objective metrics."""
