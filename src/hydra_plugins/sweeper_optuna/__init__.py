"""Hydra's door to the search. Hydra imports this at every start, so it imports nothing heavy."""
