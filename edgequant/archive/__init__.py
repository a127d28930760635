"""The folder of a run: what was planned, made and captured.  Written as things finish, opened again later."""
