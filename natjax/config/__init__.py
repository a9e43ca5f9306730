"""One run, described: frozen dataclasses, built by a `configs/*.py` file and kept as JSON.

A config file is Python with a function `get_config() -> Config`; its docstring holds the commands and the numbers
to expect. The resolved config is written to `workdir/config.json`, which is all that decoding needs.
"""

from natjax.config.checks import unused_fields, validate
from natjax.config.files import (
    configs_folder,
    differing_fields,
    expand,
    from_json,
    load_config,
    shipped_configs,
    to_json,
)
from natjax.config.sections import (
    Config,
    DataConfig,
    DecodingConfig,
    ModelConfig,
    ObjectiveConfig,
    TrainingConfig,
    VocabConfig,
)
from natjax.typed import leaves

__all__ = [
    "Config",
    "DataConfig",
    "DecodingConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "TrainingConfig",
    "VocabConfig",
    "configs_folder",
    "differing_fields",
    "expand",
    "from_json",
    "leaves",
    "load_config",
    "shipped_configs",
    "to_json",
    "unused_fields",
    "validate",
]
