"""Run a function of a test module in fresh processes with emulated CPU devices."""

from experiments.processes import run

__all__ = ["run"]
