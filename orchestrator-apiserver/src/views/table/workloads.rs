//! The cells of what makes pods, and of what guards and scales them.

use serde_json::Value;

use super::row::{Row, Tree, cells, first_of};

/// Metrics of an autoscaler that are shown.
const METRICS: usize = 2;

/// The names and images of the containers of a pod template's `spec`.
fn containers(pod_spec: Tree<'_>) -> (String, String) {
    let of = |name: &str| {
        let texts = pod_spec.get("containers").items().map(|container| container.get(name).text());
        texts.collect::<Vec<_>>().join(",")
    };
    (of("name"), of("image"))
}

pub(super) fn pod_template(row: &Row<'_>) -> Vec<Value> {
    let (names, images) = containers(row.at("template.spec"));
    cells![row.name(), names, images, row.at("template.metadata.labels").labels()]
}

pub(super) fn replication_controller(row: &Row<'_>) -> Vec<Value> {
    replicas(row, row.at("spec.selector").labels())
}

pub(super) fn replica_set(row: &Row<'_>) -> Vec<Value> {
    replicas(row, row.at("spec.selector").selector_or_none())
}

fn replicas(row: &Row<'_>, selector: String) -> Vec<Value> {
    let (names, images) = containers(row.at("spec.template.spec"));
    cells![
        row.name(),
        row.at("spec.replicas").int(),
        row.at("status.replicas").int(),
        row.at("status.readyReplicas").int(),
        row.age(),
        names,
        images,
        selector,
    ]
}

pub(super) fn deployment(row: &Row<'_>) -> Vec<Value> {
    let (names, images) = containers(row.at("spec.template.spec"));
    cells![
        row.name(),
        format!("{}/{}", row.at("status.readyReplicas").int(), row.at("spec.replicas").int()),
        row.at("status.updatedReplicas").int(),
        row.at("status.availableReplicas").int(),
        row.age(),
        names,
        images,
        row.at("spec.selector").selector().unwrap_or_else(|| "<invalid>".to_owned()),
    ]
}

pub(super) fn stateful_set(row: &Row<'_>) -> Vec<Value> {
    let (names, images) = containers(row.at("spec.template.spec"));
    let ready = format!("{}/{}", row.at("status.readyReplicas").int(), row.at("spec.replicas").int());
    cells![row.name(), ready, row.age(), names, images]
}

pub(super) fn daemon_set(row: &Row<'_>) -> Vec<Value> {
    let status = row.at("status");
    let (names, images) = containers(row.at("spec.template.spec"));
    cells![
        row.name(),
        status.get("desiredNumberScheduled").int(),
        status.get("currentNumberScheduled").int(),
        status.get("numberReady").int(),
        status.get("updatedNumberScheduled").int(),
        status.get("numberAvailable").int(),
        row.at("spec.template.spec.nodeSelector").labels(),
        row.age(),
        names,
        images,
        row.at("spec.selector").selector_or_none(),
    ]
}

pub(super) fn job(row: &Row<'_>) -> Vec<Value> {
    let (spec, status) = (row.at("spec"), row.at("status"));
    let succeeded = status.get("succeeded").int();
    let completions = match (spec.get("completions").value(), spec.get("parallelism").int()) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let (names, images) = containers(row.at("spec.template.spec"));
    cells![
        row.name(),
        job_status(row),
        completions,
        row.between(status.get("startTime"), status.get("completionTime")),
        row.age(),
        names,
        images,
        spec.get("selector").selector_or_none(),
    ]
}

fn job_status(row: &Row<'_>) -> &'static str {
    let conditions = row.at("status.conditions");
    let holds = |of| conditions.condition_holds(of);
    if holds("Complete") {
        "Complete"
    } else if holds("Failed") {
        "Failed"
    } else if row.is_terminating() {
        "Terminating"
    } else if holds("Suspended") {
        "Suspended"
    } else if holds("FailureTarget") {
        "FailureTarget"
    } else {
        "Running"
    }
}

pub(super) fn cron_job(row: &Row<'_>) -> Vec<Value> {
    let last = row.at("status.lastScheduleTime");
    let suspend = match row.at("spec.suspend").bool() {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    let (names, images) = containers(row.at("spec.jobTemplate.spec.template.spec"));
    cells![
        row.name(),
        row.at("spec.schedule").text(),
        row.at("spec.timeZone").text_or("<none>"),
        suspend,
        row.at("status.active").len(),
        if last.exists() { row.since(last) } else { "<none>".to_owned() },
        row.age(),
        names,
        images,
        row.at("spec.jobTemplate.spec.selector").selector_or_none(),
    ]
}

pub(super) fn controller_revision(row: &Row<'_>) -> Vec<Value> {
    let mut owners = row.at("metadata.ownerReferences").items();
    let controller = owners.find(|owner| owner.get("controller").bool() == Some(true)).map(|owner| {
        let kind = owner.get("kind").text().to_lowercase();
        match owner.get("apiVersion").text().split_once('/') {
            Some((group, _)) => format!("{kind}.{group}/{}", owner.get("name").text()),
            None => format!("{kind}/{}", owner.get("name").text()),
        }
    });
    let controller = controller.unwrap_or_else(|| "<none>".to_owned());
    cells![row.name(), controller, row.at("revision").int(), row.age()]
}

pub(super) fn pod_disruption_budget(row: &Row<'_>) -> Vec<Value> {
    let bound = |path| row.at(path).shown().unwrap_or_else(|| "N/A".to_owned());
    cells![
        row.name(),
        bound("spec.minAvailable"),
        bound("spec.maxUnavailable"),
        row.at("status.disruptionsAllowed").int(),
        row.age(),
    ]
}

pub(super) fn scale(row: &Row<'_>) -> Vec<Value> {
    cells![row.name(), row.at("spec.replicas").int(), row.at("status.replicas").int(), row.age()]
}

pub(super) fn autoscaler(row: &Row<'_>) -> Vec<Value> {
    let (spec, status) = (row.at("spec"), row.at("status"));
    let target = spec.get("scaleTargetRef");
    let metrics = if spec.get("targetCPUUtilizationPercentage").exists() {
        vec![first_version_metric(spec, status)]
    } else {
        let current: Vec<Tree<'_>> = status.get("currentMetrics").items().collect();
        let metrics = spec.get("metrics").items().enumerate();
        metrics.map(|(index, metric)| metric_text(metric, current.get(index).copied())).collect()
    };
    cells![
        row.name(),
        format!("{}/{}", target.get("kind").text(), target.get("name").text()),
        if metrics.is_empty() { "<none>".to_owned() } else { first_of(&metrics, METRICS, ", ") },
        spec.get("minReplicas").shown().unwrap_or_else(|| "<unset>".to_owned()),
        spec.get("maxReplicas").int(),
        status.get("currentReplicas").int(),
        row.age(),
    ]
}

/// The one metric that `autoscaling/v1` has.
fn first_version_metric(spec: Tree<'_>, status: Tree<'_>) -> String {
    let current = percent(status.get("currentCPUUtilizationPercentage"), "<unknown>");
    format!("cpu: {current}/{}", percent(spec.get("targetCPUUtilizationPercentage"), "<auto>"))
}

fn percent(share: Tree<'_>, otherwise: &str) -> String {
    share.shown().map_or_else(|| otherwise.to_owned(), |share| format!("{share}%"))
}

/// A metric's state and target: `cpu: 20%/80%`, `3/10 (avg)`.
fn metric_text(metric: Tree<'_>, status: Option<Tree<'_>>) -> String {
    let member = match metric.get("type").text() {
        "External" => "external",
        "Pods" => "pods",
        "Object" => "object",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => return "<unknown type>".to_owned(),
    };
    let (source, target) = (metric.get(member), metric.get(member).get("target"));
    let current = |name: &str| status.and_then(|status| status.get(member).get("current").get(name).value());
    let amount = |name: &str| match current(name) {
        Some(value) => Tree::new(value).shown().unwrap_or_default(),
        None => "<unknown>".to_owned(),
    };
    let wanted = |name: &str| target.get(name).shown().unwrap_or_else(|| "0".to_owned());
    let averaged = target.get("averageValue").exists();
    match member {
        "pods" => format!("{}/{}", amount("averageValue"), wanted("averageValue")),
        "external" | "object" if averaged => format!("{}/{} (avg)", amount("averageValue"), wanted("averageValue")),
        "external" | "object" => format!("{}/{}", amount("value"), wanted("value")),
        _ if averaged => {
            format!("{}: {}/{}", source.get("name").text(), amount("averageValue"), wanted("averageValue"))
        }
        _ => {
            let share = current("averageUtilization").map_or("<unknown>".to_owned(), |share| format!("{share}%"));
            let target = percent(target.get("averageUtilization"), "<auto>");
            format!("{}: {share}/{target}", source.get("name").text())
        }
    }
}
