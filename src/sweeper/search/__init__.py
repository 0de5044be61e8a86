"""The search over any Hydra app: space, study, pool, worker. Never imports torch."""
