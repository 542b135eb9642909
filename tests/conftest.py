import pytest
import torch

# More threads than one collapse when something else runs on the machine.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _same_numbers_every_time():
    torch.manual_seed(0)
