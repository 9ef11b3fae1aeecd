"""What runs came to, in a few numbers and words."""
