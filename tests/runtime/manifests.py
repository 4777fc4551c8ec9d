"""Manifests that differ from valid ones."""

import json
from typing import Any

from flawline.runtime import bundle
from flawline.runtime.bundle import manifest as manifests


def changed(manifest: bundle.AnyManifest, **fields: Any) -> bytes:
    """The bytes of a manifest with fields put in place of others by their path: `changed(m, map__sigma=2)`; ... removes one."""
    plain = json.loads(manifests.encode(manifest))
    for path, value in fields.items():
        *outer, last = [int(key) if key.isdigit() else key for key in path.split("__")]
        target: Any = plain
        for key in outer:
            target = target[key]
        if value is ...:
            del target[last]
        else:
            target[last] = value
    return json.dumps(plain).encode()
