//! What the Prometheus operator needs to scrape Garth's operator, and when it calls someone.

use serde_json::{Value, json};

use super::{Install, METRICS, OPERATOR, named};

struct Alert {
    name: &'static str,
    expression: &'static str,
    lasts: &'static str,
    severity: &'static str,
    summary: &'static str,
    /// What to do.
    description: &'static str,
}

// Each aggregates over the operators: whichever leads, it is the same alert.
const ALERTS: [Alert; 7] = [
    Alert {
        name: "GarthOperatorNoLeader",
        expression: "absent(garth_operator_leader == 1)",
        lasts: "2m",
        severity: "critical",
        summary: "No operator of Garth leads",
        description: "No project is started, stopped or made again; sandboxes that run go on. See `kubectl -n <namespace> get \
                      pods -l app.kubernetes.io/component=garth-operator` and their logs, and who holds the Lease garth-operator. \
                      If all is well there, Prometheus does not reach port 9090 of these Pods.",
    },
    Alert {
        name: "GarthOperatorRightsMissing",
        expression: r#"sum by (reason) (increase(garth_operator_refusals_total{reason="rights"}[10m])) > 0"#,
        lasts: "5m",
        severity: "critical",
        summary: "The operator may not do what it has to",
        description: "Its account lacks rights: `garth doctor --cluster` names them. Usually its image is newer than its manifests; \
                      apply those of the same version again.",
    },
    Alert {
        name: "GarthReconciliationsFailing",
        expression: r#"sum by (kind) (rate(garth_operator_reconciliations_total{outcome="refused"}[10m])) / sum by (kind) (rate(garth_operator_reconciliations_total[10m])) > 0.5"#,
        lasts: "15m",
        severity: "warning",
        summary: "Most reconciliations of kind {{ $labels.kind }} fail",
        description: "{{ $value | humanizePercentage }} of them. `sum by (reason) (rate(garth_operator_refusals_total[10m]))` says \
                      which refusals, `kubectl get projects,warmpools -A` and the operator's log in whose words: a full quota, a \
                      policy, or an API server that is overloaded or out of reach.",
    },
    Alert {
        name: "GarthReconciliationsSlow",
        expression: "histogram_quantile(0.9, sum by (le, kind) (rate(garth_operator_reconciliation_duration_seconds_bucket[10m]))) > 5",
        lasts: "15m",
        severity: "warning",
        summary: "Reconciliations of kind {{ $labels.kind }} are slow",
        description: "One in ten takes longer than {{ $value | humanizeDuration }}. The API server or one of its admission webhooks \
                      answers slowly: see apiserver_request_duration_seconds and apiserver_admission_webhook_admission_duration_seconds.",
    },
    Alert {
        name: "GarthProjectPending",
        expression: "max by (reason) (garth_operator_longest_pending_seconds) > 900",
        lasts: "1m",
        severity: "warning",
        summary: "A project has been waiting to run for longer than 15 minutes: {{ $labels.reason }}",
        description: "The longest for {{ $value | humanizeDuration }}. `kubectl get projects -A | grep {{ $labels.reason }}` finds it, \
                      and its condition Ready in `kubectl describe project` says what helps: a node, room in a quota, an image that \
                      can be pulled.",
    },
    Alert {
        name: "GarthProjectFailed",
        expression: r#"sum by (runtime) (max by (state, runtime) (garth_operator_projects{state="Failed"})) > 0"#,
        lasts: "10m",
        severity: "warning",
        summary: "Projects of the runtime {{ $labels.runtime }} cannot be carried out",
        description: "{{ $value }} of them, and time does not mend it. `kubectl get projects -A | grep Failed`: RuntimeUnavailable \
                      wants an IsolationClass whose RuntimeClass is there, DiskLost a restored claim, NameTaken another name.",
    },
    Alert {
        name: "GarthPoolEmpty",
        expression: "max by (namespace, pool) (garth_operator_pool_sandboxes_ready) == 0 and max by (namespace, pool) (garth_operator_pool_sandboxes_wanted) > 0",
        lasts: "10m",
        severity: "warning",
        summary: "The pool {{ $labels.namespace }}/{{ $labels.pool }} has no sandbox that can be taken",
        description: "New projects start cold. `kubectl -n {{ $labels.namespace }} describe warmpool {{ $labels.pool }}` says why; if \
                      projects take them faster than they are made, `kubectl scale` it up.",
    },
];

/// A PodMonitor and a PrometheusRule (`monitoring.coreos.com/v1`).
pub fn monitoring(install: &Install) -> [Value; 2] {
    let object = |kind: &str, spec: Value| {
        json!({
            "apiVersion": "monitoring.coreos.com/v1", "kind": kind,
            "metadata": named(OPERATOR, install), "spec": spec,
        })
    };
    let monitor = json!({
        "selector": { "matchLabels": { "app.kubernetes.io/component": OPERATOR } },
        // A pool's namespace is its own, and not the operator's.
        "podMetricsEndpoints": [{ "port": METRICS, "path": "/metrics", "honorLabels": true }],
    });
    let rules = json!({ "groups": [{ "name": OPERATOR, "rules": ALERTS.map(|alert| rule(&alert, install)) }] });
    [object("PodMonitor", monitor), object("PrometheusRule", rules)]
}

fn rule(alert: &Alert, install: &Install) -> Value {
    let description = alert.description.replace("<namespace>", &install.namespace);
    json!({
        "alert": alert.name,
        "expr": alert.expression,
        "for": alert.lasts,
        "labels": { "severity": alert.severity },
        "annotations": { "summary": alert.summary, "description": description },
    })
}
