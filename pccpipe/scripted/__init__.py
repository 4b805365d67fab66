"""Scripted models: servers of the models' APIs whose answers a file gives, and `pccpipe test`, which runs pipelines
against them.
"""
