"""Images, their labels, and the order and augmentation in which a run sees them."""
