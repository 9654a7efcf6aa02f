"""The Grafana dashboards of the chart."""
