"""The endless web: where its lines lie, what of it is inspected, and what is found on it."""
