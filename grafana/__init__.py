"""What the people who run Clickmill look at: dashboards, alerts, Prometheus' configuration.

rules.py and the two dashboard modules are the sources; build.py writes what Prometheus and Grafana
read. Like bench/, this is no part of what is installed to run.
"""
