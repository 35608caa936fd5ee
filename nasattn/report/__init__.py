"""What users see: the live view and the tables."""
