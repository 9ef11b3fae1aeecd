"""What happens in a training besides the trainer's own steps."""
