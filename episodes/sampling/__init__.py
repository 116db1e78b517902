"""What samplers stand on: what a sampler is, batches ahead of time, and whether pools can serve a request."""

from episodes.sampling.feasibility import Range, as_range, check_pools, per_pool
from episodes.sampling.prefetch import BaseSampler, Sampler, in_batches, prefetch

__all__ = ["BaseSampler", "Range", "Sampler", "as_range", "check_pools", "in_batches", "per_pool", "prefetch"]
