"""Python code that nobody has read, run where it can do no harm: for rewards, tools and evaluation."""

from models.sandbox.outside import Guards, Limits, Ran, Verdict, guards, run, verify

__all__ = ["Guards", "Limits", "Ran", "Verdict", "guards", "run", "verify"]
