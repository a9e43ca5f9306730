"""The paper's Table 4 on the embedded corpus, difficulty `hard`: small enough for all rows in one sitting on two cores.

    natjax analyze ablation table4 --output runs/table4                       # all rows, three seeds each
    natjax train table4 --workdir runs/ctc_raw_vae --model.latents vae    # the like of one row, alone

Rows differ in data, latents, loss and glancing; this config holds what they share. Its batch is that of CTC: CE and AXE
have half as many frames for the same sentences. docs/ablation.md tells more.
"""

from dataclasses import replace

from natjax.config import Config, TrainingConfig, load_config


def get_config() -> Config:
    """As `hard`, smaller and shorter: one batch shape, scored once, at the end."""
    hard = load_config("hard")
    training: TrainingConfig = replace(
        hard.training,
        steps=400,
        batch_frames=1280,
        warmup_steps=50,
        cooldown_steps=320,
        eval_every=400,
        save_every=400,
        log_every=50,
        keep_last=1,
        keep_best=1,
    )
    return replace(
        hard,
        name="table4",
        # The few longest sentences are left out: all others fit one shape with little padding.
        data=replace(hard.data, max_length=20, buckets=1),
        model=replace(hard.model, width=96, feed_forward=384, ratio=2.0, dropout=0.1, posterior_layers=1),
        training=training,
    )
