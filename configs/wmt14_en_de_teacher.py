"""WMT14 English to German: the autoregressive teacher, Transformer base.

natjax train wmt14_en_de_teacher --workdir runs/wmt14_en_de/teacher        # data: see wmt14_en_de
natjax evaluate --model runs/wmt14_en_de/teacher --tokenize moses \
        --source $NATJAX_DATA/wmt14_ende/test.eng --reference $NATJAX_DATA/wmt14_ende/test.deu

What to expect: the paper's tokenized BLEU on newstest2014, beam 5, length penalty 1.0 (tables 2 and 5). natjax has not
been trained on WMT14 yet.

| options of `natjax train wmt14_en_de_teacher`                                     | raw   | KD, base | KD, big |
|---|---|---|---|
|                                                                                   | 27.43 to 27.48 | | |
| `--model.width 1024 --model.feed-forward 4096 --model.heads 16`                   | 28.14 | | |
| `--model.encoder-layers 12 --model.decoder-layers 1`                              | 26.12 | 27.34 | 27.83 |
"""

from dataclasses import replace

from natjax.config import Config, ModelConfig, ObjectiveConfig, TrainingConfig, load_config


def get_config() -> Config:
    """On the text of wmt14_en_de; Vaswani et al.'s model, the paper's training (appendix A, the same for both)."""
    student = load_config("wmt14_en_de")
    return replace(
        student,
        name="wmt14_en_de_teacher",
        model=ModelConfig.base(
            kind="autoregressive",
            dropout=student.model.dropout,
            activation="relu",
            positions="sinusoidal",
            initializer="xavier",
            dtype="bfloat16",
        ),
        objective=ObjectiveConfig.paper(loss="ce", target_eos=True),
        training=TrainingConfig.paper(batch_frames=131_072),
    )
