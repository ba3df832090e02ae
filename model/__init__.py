"""The numerical part: pure torch, runs on a bare GPU box without ray, prefect, mlflow, pyarrow or pydantic."""
