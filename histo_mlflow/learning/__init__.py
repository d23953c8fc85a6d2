"""What happens: network, augmentation, training and inference on plain arrays; knows nothing of files' formats or of MLflow."""

from histo_mlflow.learning.allocator import map_large_tensors

map_large_tensors()
