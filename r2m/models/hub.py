"""Whether the Hugging Face hub can be reached, asked once: its client would try for half a minute."""

from __future__ import annotations

import functools
import urllib.error
import urllib.request

from huggingface_hub import constants

TIMEOUT_S = 5.0


@functools.cache
def hub_reachable() -> bool:
    """False, within seconds, without a network or where HF_HUB_OFFLINE is set; what is cached can still be used."""
    if constants.HF_HUB_OFFLINE:
        return False
    request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=TIMEOUT_S).close()
    except urllib.error.HTTPError:  # it answered
        return True
    except OSError:
        return False
    return True
