import signal

import pytest

for number in (
    "SIGINT",
    "SIGHUP",
):  # a shell's & and nohup have them ignored, which limbeck heeds
    if hasattr(signal, number):
        signal.signal(getattr(signal, number), signal.default_int_handler if number == "SIGINT" else signal.SIG_DFL)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory):
    """What is remembered of images, apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield
