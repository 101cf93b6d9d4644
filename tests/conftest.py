"""What several rooms' tests share: property tests without a clock, and a place for code that comes with weights."""

import sys

import pytest
from hypothesis import HealthCheck, settings

# No property test is judged by the clock of the machine that it runs on.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture
def own_remote_modules(tmp_path_factory, monkeypatch):
    """transformers copies the code of a model's folder to a new place, imports it from there, and asks no network.

    The package `transformers_modules` remembers where it was imported from: an earlier test's is forgotten.
    """
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [name for name in sys.modules if name.partition(".")[0] == "transformers_modules"]:
        monkeypatch.delitem(sys.modules, name)
