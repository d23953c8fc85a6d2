"""The code that travels inside a logged model: from tiles, as arrays or as encoded images, to a table of probabilities.

A copy of this folder lies in every logged model, under a name that holds a hash of its content, and is imported from there in
environments without histo-mlflow; so it imports nothing but what the model requires, and never the rest of the package.
"""
