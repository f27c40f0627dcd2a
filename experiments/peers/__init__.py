"""Both sides of a race: processes that stay alive and take turns, one sample each per round."""
