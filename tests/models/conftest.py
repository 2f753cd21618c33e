"""One thread for torch in these tests: the models are tiny, and threads that wait for each other on a busy machine are
what would take the time.
"""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
