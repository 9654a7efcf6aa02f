"""Dashboards about the services themselves: the webhook's admissions, and what all controllers have."""

from __future__ import annotations

from tools.dashboards.model import Dashboard, Panel, Row, Variable, quantiles, rate, stat

_LAG = "groundwork_event_loop_lag_seconds_count"
"""A metric of every service and of nothing else: it tells ours from controllers with metrics of the same names."""
_OURS = f"and on (job, instance) {_LAG}"

ADMISSIONS = Dashboard(
    "admissions",
    "Groundwork: admissions",
    "The webhook that gives pods what presets say: its answers, its certificate and its connections.",
    (Variable("pod", "groundwork_webhook_requests_in_flight", "pod"),),
    (
        stat(
            "Reviews",
            "Answers for each second.",
            "sum(rate(groundwork_webhook_requests_total[$__rate_interval]))",
            "ops",
        ),
        stat(
            "Failed",
            "Share of reviews that could not be read or whose handler failed, in the last hour.",
            'sum(increase(groundwork_webhook_requests_total{result=~"bad|error"}[1h])) '
            "/ sum(increase(groundwork_webhook_requests_total[1h]))",
            "percentunit",
        ),
        stat(
            "Certificate expires in",
            "The one that expires first.",
            "min(groundwork_webhook_certificate_expiry_timestamp_seconds) - time()",
            "s",
        ),
        stat(
            "Presets that cannot be applied",
            "Their condition Ready says why.",
            'sum(max by (kind) (groundwork_podpreset_presets{ready="false"}))',
        ),
        Panel("Answers", "By result.", rate("groundwork_webhook_requests_total", "path, result"), "ops"),
        Panel(
            "Time to answer",
            "From the last byte of a review to its answer.",
            quantiles("groundwork_webhook_request_duration_seconds", "path", shares=(0.5, 0.99, 0.999)),
            "s",
        ),
        Panel(
            "What became of pods",
            "Dry runs are counted too.",
            rate("groundwork_podpreset_pods_total", "outcome"),
            "ops",
            stacked=True,
        ),
        Panel("Pods left alone", "By why.", rate("groundwork_podpreset_skips_total", "reason"), "ops"),
        Panel(
            "Pods by preset",
            "Pods that each preset was given to.",
            rate("groundwork_podpreset_injections_total", "kind, namespace, preset"),
            "ops",
        ),
        Panel(
            "Conflicts by preset",
            "What a preset could not give because the pod or another preset says differently.",
            rate("groundwork_podpreset_conflicts_total", "kind, namespace, preset"),
            "ops",
        ),
        Panel(
            "Presets",
            "By kind and by whether they can be applied.",
            [("max by (kind, ready) (groundwork_podpreset_presets)", "{{kind}} ready={{ready}}")],
        ),
        Panel("Size of patches", "", quantiles("groundwork_podpreset_patch_bytes"), "bytes"),
        Panel(
            "Age of what is known",
            "Time since the API server was last heard of.",
            [
                (
                    'max by (pod, resource) (groundwork_podpreset_cache_age_seconds{pod=~"$pod"})',
                    "{{pod}} {{resource}}",
                )
            ],
            "s",
        ),
        Row("Certificate and connections"),
        Panel(
            "Certificate",
            "published: the API server is told to trust it (1). rejected: a newer one cannot be used (1).",
            [
                ('min by (pod) (groundwork_webhook_ca_published{pod=~"$pod"})', "published {{pod}}"),
                ('max by (pod) (groundwork_webhook_certificate_rejected{pod=~"$pod"})', "rejected {{pod}}"),
            ],
        ),
        Panel(
            "Steps of self-managed certificates",
            "Made, renewed, published; and what failed.",
            [
                *rate("groundwork_webhook_certificate_loads_total", "result"),
                ("sum by (step) (rate(groundwork_webhook_certificate_steps_total[$__rate_interval]))", "{{step}}"),
                (
                    "sum by (step) (rate(groundwork_webhook_certificate_step_failures_total[$__rate_interval]))",
                    "{{step}} failed",
                ),
            ],
            "ops",
        ),
        Panel(
            "Connections and requests",
            "At the moment of each scrape.",
            [
                ('sum by (pod) (groundwork_webhook_connections{pod=~"$pod"})', "connections {{pod}}"),
                ('sum by (pod) (groundwork_webhook_requests_in_flight{pod=~"$pod"})', "requests {{pod}}"),
            ],
        ),
        Panel(
            "Handshakes",
            "Begun, and failed by why. refused: one side does not trust the other.",
            [
                ("sum(rate(groundwork_webhook_tls_handshakes_total[$__rate_interval]))", "begun"),
                *rate("groundwork_webhook_tls_handshake_failures_total", "reason"),
            ],
            "ops",
        ),
        Panel(
            "Connections dropped",
            "Ended from our side before their time.",
            rate("groundwork_webhook_connections_dropped_total", "reason"),
            "ops",
        ),
        Panel(
            "Handlers that failed, processes that ended",
            "Both stay 0.",
            [
                ("sum by (path) (increase(groundwork_webhook_errors_total[1h]))", "failed {{path}}"),
                ("sum by (pod) (increase(groundwork_process_restarts_total[1h]))", "ended {{pod}}"),
            ],
        ),
    ),
)

_JOB = '{job=~"$job"}'

CONTROLLERS = Dashboard(
    "controllers",
    "Groundwork: controllers",
    "Queues, reconciliations, calls to the API server and the processes of all services.",
    (Variable("job", _LAG, "job"),),
    (
        Panel(
            "Leaders",
            "1 for the replica that works, 0 for those that stand by.",
            [(f"max by (name, pod) (leader_election_master_status{_JOB})", "{{name}} {{pod}}")],
        ),
        Panel(
            "Reconciliations",
            "By controller and result.",
            rate("controller_runtime_reconcile_total", "controller, result", _JOB),
            "ops",
        ),
        Panel(
            "Errors",
            "All of them; then those that are not tried again, were too slow, or were mistakes of ours.",
            [
                (f"sum by (controller) (rate({metric}{_JOB}[$__rate_interval]))", f"{what} {{{{controller}}}}")
                for what, metric in (
                    ("all", "controller_runtime_reconcile_errors_total"),
                    ("final", "controller_runtime_terminal_reconcile_errors_total"),
                    ("too slow", "controller_runtime_reconcile_timeouts_total"),
                    ("mistakes", "controller_runtime_reconcile_panics_total"),
                )
            ],
            "ops",
        ),
        Panel(
            "Duration of reconciliations",
            "",
            quantiles("controller_runtime_reconcile_time_seconds", "controller", _JOB),
            "s",
        ),
        Row("Queues"),
        Panel(
            "Depth",
            "Keys that wait for a worker.",
            [(f"max by (job, name) (workqueue_depth{_JOB})", "{{name}}")],
        ),
        Panel("Wait", "In the queue.", quantiles("workqueue_queue_duration_seconds", "name", _JOB), "s"),
        Panel("Work", "In a worker's hands.", quantiles("workqueue_work_duration_seconds", "name", _JOB), "s"),
        Panel(
            "Unfinished",
            "Work in progress: of all keys together, and of the one that takes longest.",
            [
                (f"max by (job, name) (workqueue_unfinished_work_seconds{_JOB})", "all {{name}}"),
                (f"max by (job, name) (workqueue_longest_running_processor_seconds{_JOB})", "longest {{name}}"),
            ],
            "s",
        ),
        Panel(
            "Added and tried again",
            "",
            [
                (f"sum by (name) (rate(workqueue_adds_total{_JOB}[$__rate_interval]))", "added {{name}}"),
                (f"sum by (name) (rate(workqueue_retries_total{_JOB}[$__rate_interval]))", "again {{name}}"),
            ],
            "ops",
        ),
        Panel(
            "Workers",
            "Busy ones, of how many there are.",
            [
                (f"sum by (controller) (controller_runtime_active_workers{_JOB})", "busy {{controller}}"),
                (f"max by (controller) (controller_runtime_max_concurrent_reconciles{_JOB})", "of {{controller}}"),
            ],
        ),
        Row("API server and local copies"),
        Panel("Calls", "By answer.", rate("rest_client_requests_total", "job, method, code", _JOB), "ops"),
        Panel(
            "Duration of calls",
            "Watches are not in it.",
            quantiles("rest_client_request_duration_seconds", "verb", _JOB),
            "s",
        ),
        Panel(
            "Interrupted lists and watches",
            "By cause.",
            rate("groundwork_reflector_interruptions_total", "resource, cause", _JOB),
            "ops",
        ),
        Panel(
            "Lists and watches begun",
            "Lists after the first one cost the API server; watches end every few minutes by themselves.",
            [
                (f"sum by (job) (rate(groundwork_reflector_relists_total{_JOB}[$__rate_interval]))", "relists {{job}}"),
                (f"sum by (job) (rate(groundwork_reflector_watches_total{_JOB}[$__rate_interval]))", "watches {{job}}"),
            ],
            "ops",
        ),
        Panel("Watch events", "", rate("groundwork_reflector_events_total", "resource, type", _JOB), "ops"),
        Panel(
            "Objects in local copies",
            "",
            [(f"max by (job, resource) (groundwork_store_objects{_JOB})", "{{job}} {{resource}}")],
        ),
        Panel("Events not written", "", rate("groundwork_events_dropped_total", "job, reason", _JOB), "ops"),
        Row("Processes"),
        Panel(
            "Event loop lag",
            "How late timers are. What blocks the loop delays probes, watches and the renewal of the Lease.",
            quantiles("groundwork_event_loop_lag_seconds", "job", _JOB, shares=(0.99,)),
            "s",
        ),
        Panel(
            "CPU",
            "Cores.",
            [
                (
                    f"sum by (job, pod) (rate(process_cpu_seconds_total{_JOB}[$__rate_interval]) {_OURS})",
                    "{{job}} {{pod}}",
                )
            ],
        ),
        Panel(
            "Memory",
            "Resident.",
            [
                (
                    f"sum by (job, pod) (process_resident_memory_bytes{_JOB} {_OURS})",
                    "{{job}} {{pod}}",
                )
            ],
            "bytes",
        ),
    ),
)
