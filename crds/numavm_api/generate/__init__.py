"""Writes the CustomResourceDefinitions and admission policies below `crds/` from the models: nobody edits them by hand."""
