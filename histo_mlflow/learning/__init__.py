"""What happens: network, augmentation, training and inference on plain arrays; knows nothing of files' formats or of MLflow."""
