"""Dashboards, alerts and Prometheus' configuration.

rules.py and the two dashboard modules are the sources; build.py writes the files that Prometheus
and Grafana read. Like bench/, this package is not installed with Clickmill.
"""
