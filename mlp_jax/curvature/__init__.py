"""Curvature of any function of any pytree: knows no network and no optimiser."""
