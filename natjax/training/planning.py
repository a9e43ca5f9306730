"""The batches of a run: what its config and its store make of `natjax.data.plan`."""

import numpy as np

from natjax import objectives
from natjax.config import Config
from natjax.data.plan import Plan, choose_buckets
from natjax.data.store import Store


def training_plan(config: Config, store: Store) -> Plan:
    """The batch shapes of a run, and which rows of its store make up which batch."""
    split, valid, data = store.split("train"), store.split("valid"), config.data
    buckets = choose_buckets(
        # Validation pairs count too, so that none is longer than the longest bucket.
        np.concatenate([split.source_lengths, valid.source_lengths]),
        np.concatenate([split.target_lengths, valid.target_lengths]),
        buckets=data.buckets,
        multiple=data.length_multiple,
        max_length=data.max_length,
        batch_frames=config.training.batch_frames,
        max_frames=objectives.build(config).max_frames,
        posterior=config.model.latents != "none",
    )
    return Plan(split.source_lengths, split.target_lengths, buckets, config.training.seed)


def sentences_seen(plan: Plan, steps: int) -> int:
    """Sentences that so many updates from the first are made of; each as often as it was met."""
    epochs, more = divmod(steps, plan.batches_per_epoch)
    last = (plan.batch(epochs * plan.batches_per_epoch + place) for place in range(more))
    return epochs * plan.rows + sum(len(batch.rows) for batch in last)
