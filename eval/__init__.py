"""What judges a trained network; knows checkpoints and result files, not the trainer."""
