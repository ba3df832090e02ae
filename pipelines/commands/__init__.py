"""The subcommands of ``gwm``, by what they touch.

Their imports of flows and tasks are inside the functions for one reason: start-up time. Prefect, torch and MLflow
take seconds to import, and ``gwm --help`` needs none of them.
"""
