"""What a run is told, as globals."""

vocab, context, width, heads, layers = 64, 64, 32, 4, 2
batch_size, micro_batches, updates = 8, 2, 20
rate, weight_decay, clip = 1e-3, 0.1, 1.0
compiled = False
