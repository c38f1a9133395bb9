"""The built-in recipes: functions whose arguments are the command line and whose result is a ``Recipe``."""
