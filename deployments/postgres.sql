-- The lake's catalog, beside Prefect's own database, which the image makes.
CREATE DATABASE catalog;
