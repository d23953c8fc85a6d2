"""Classifiers of histology tiles: trained, cross-validated, evaluated and registered with MLflow at the centre."""

__version__ = "0.1.0"
