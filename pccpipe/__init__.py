"""Runs AI coding agents as YAML pipelines. (The public face follows.)"""
