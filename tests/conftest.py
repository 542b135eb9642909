import torch

# More threads than one collapse when something else runs on the machine.
torch.set_num_threads(1)
