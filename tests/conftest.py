"""Settings that all tests share."""

import torch

# small tensors gain nothing from a second thread, and on a busy machine waiting for it costs most of the time
torch.set_num_threads(1)
