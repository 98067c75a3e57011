//! Probes and lifecycle hooks.

use crate::{
    field::{Errors, Field},
    kinds::check,
};

/// The rules of a container's probes and hooks.
pub(super) fn validate(container: &Field<'_>, grace_seconds: i64, errors: &mut Errors) {
    for hook in ["postStart", "preStop"] {
        let hook = container.get("lifecycle").get(hook);
        if hook.exists() {
            handler(&hook, &["exec", "httpGet", "tcpSocket", "sleep"], grace_seconds, errors);
        }
        let signal = container.at("lifecycle.stopSignal");
        if signal.exists() && !signal.text().starts_with("SIG") {
            signal.invalid(errors, "must be a signal's name");
        }
    }
    liveness(&container.get("livenessProbe"), errors);
    let readiness = container.get("readinessProbe");
    probe(&readiness, errors);
    let grace = readiness.get("terminationGracePeriodSeconds");
    if grace.exists() {
        grace.invalid(errors, "must not be set for readinessProbes");
    }
    liveness(&container.get("startupProbe"), errors);
}

/// Success is success: only readiness may ask for more than one.
fn liveness(field: &Field<'_>, errors: &mut Errors) {
    probe(field, errors);
    let threshold = field.get("successThreshold");
    if threshold.int().is_some_and(|number| number != 1) {
        threshold.invalid(errors, "must be 1");
    }
}

fn probe(probe: &Field<'_>, errors: &mut Errors) {
    if !probe.exists() {
        return;
    }
    handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], 0, errors);
    for name in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        probe.get(name).not_negative(errors);
    }
    let grace = probe.get("terminationGracePeriodSeconds");
    if grace.int().is_some_and(|seconds| seconds <= 0) {
        grace.invalid(errors, "must be greater than 0");
    }
}

fn handler(handler: &Field<'_>, kinds: &[&str], grace_seconds: i64, errors: &mut Errors) {
    let mut found = 0;
    for kind in kinds {
        let action = handler.get(kind);
        if !action.exists() {
            continue;
        }
        found += 1;
        if found > 1 {
            action.forbidden(errors, "may not specify more than 1 handler type");
            continue;
        }
        match *kind {
            "exec" if action.get("command").len() == 0 => action.get("command").required(errors, ""),
            "httpGet" => http_get(&action, errors),
            "tcpSocket" => check::port_or_name(&action.get("port"), errors),
            "grpc" => check::port_number(&action.get("port"), errors),
            "sleep" => sleep(&action, grace_seconds, errors),
            _ => {}
        }
    }
    if found == 0 {
        handler.required(errors, "must specify a handler type");
    }
}

fn http_get(action: &Field<'_>, errors: &mut Errors) {
    check::required(&action.get("path"), errors);
    check::port_or_name(&action.get("port"), errors);
    action.get("scheme").one_of(errors, &["HTTP", "HTTPS"]);
    let headers = action.get("httpHeaders");
    for header in headers.items() {
        let name = header.get("name").shown_at(headers.path());
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if name.text().is_empty() || !name.text().bytes().all(known) {
            name.invalid(
                errors,
                "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used \
                 for validation is '[-A-Za-z0-9]+')",
            );
        }
    }
}

fn sleep(action: &Field<'_>, grace_seconds: i64, errors: &mut Errors) {
    let number = action.get("seconds").int().unwrap_or(0);
    if number < 0 || number > grace_seconds {
        let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace_seconds})");
        action.wrong(errors, number, &detail);
    }
}
