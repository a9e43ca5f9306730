"""Files that the tests of a grid write and read."""

import json

from natjax.config import to_json


def write_config(config, file):
    """A config file that returns this config; its path as text."""
    file.write_text(
        f"from natjax.config import from_json\ndef get_config():\n    return from_json({to_json(config)!r})\n"
    )
    return str(file)


def read_json(file):
    """What a JSON file holds."""
    return json.loads(file.read_text())
