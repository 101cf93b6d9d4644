"""What several rooms' tests share: property tests without a clock, an ordinary user, a browser, a place for code."""

import ctypes
import os
import sys

import pytest
from hypothesis import HealthCheck, settings
from report_browser import NAMES, Browser, find_browser

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


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A browser that opens pages; the test is skipped where there is none."""
    program = find_browser()
    if program is None:
        pytest.skip(f"No browser opens the page: install one of {', '.join(NAMES)}.")
    browser = Browser(program, tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def ordinary_user():
    """Takes from the test's thread, and the processes that it forks, root's power over files that nobody may read."""
    if os.name != "posix" or os.geteuid() != 0:
        yield
        return
    if sys.platform != "linux":
        pytest.skip("root reads every file, and only Linux lets a thread lay that down")
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # the third version of capget's structures; this thread
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable: capabilities 0 to 31, then 32 to 63
    assert libc.capget(header, sets) == 0
    before = sets[0]
    sets[0] &= ~(1 << 1 | 1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, sets) == 0
    yield
    sets[0] = before
    assert libc.capset(header, sets) == 0
