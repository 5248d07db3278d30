"""Images drawn from label maps, with their labels, inside the training step (`draw`)."""
