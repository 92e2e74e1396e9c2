"""Front ends and the model zoo."""
