"""What comes out: figures of merit with intervals, pictures and a report, from labels and probabilities alone."""
