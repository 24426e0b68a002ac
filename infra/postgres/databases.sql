-- The store has the database r1; MLflow and Prefect have one each.
CREATE DATABASE mlflow;
CREATE DATABASE prefect;
