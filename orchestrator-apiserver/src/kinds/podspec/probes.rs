//! Probes and lifecycle hooks.

use super::Context;
use crate::{
    field::{Errors, Field},
    kinds::check,
};

/// The signals of Linux that may stop a container, in upstream's order.
const SIGNALS: &str = "SIGABRT SIGALRM SIGBUS SIGCHLD SIGCLD SIGCONT SIGFPE SIGHUP SIGILL SIGINT SIGIO SIGIOT SIGKILL \
                       SIGPIPE SIGPOLL SIGPROF SIGPWR SIGQUIT SIGRTMAX SIGRTMAX-1 SIGRTMAX-10 SIGRTMAX-11 SIGRTMAX-12 \
                       SIGRTMAX-13 SIGRTMAX-14 SIGRTMAX-2 SIGRTMAX-3 SIGRTMAX-4 SIGRTMAX-5 SIGRTMAX-6 SIGRTMAX-7 \
                       SIGRTMAX-8 SIGRTMAX-9 SIGRTMIN SIGRTMIN+1 SIGRTMIN+10 SIGRTMIN+11 SIGRTMIN+12 SIGRTMIN+13 \
                       SIGRTMIN+14 SIGRTMIN+15 SIGRTMIN+2 SIGRTMIN+3 SIGRTMIN+4 SIGRTMIN+5 SIGRTMIN+6 SIGRTMIN+7 \
                       SIGRTMIN+8 SIGRTMIN+9 SIGSEGV SIGSTKFLT SIGSTOP SIGSYS SIGTERM SIGTRAP SIGTSTP SIGTTIN SIGTTOU \
                       SIGURG SIGUSR1 SIGUSR2 SIGVTALRM SIGWINCH SIGXCPU SIGXFSZ";

/// The rules of a container's probes and hooks.
pub(super) fn validate(container: &Field<'_>, context: &Context<'_>, errors: &mut Errors) {
    for hook in ["postStart", "preStop"] {
        let hook = container.get("lifecycle").get(hook);
        if hook.exists() {
            handler(&hook, &["exec", "httpGet", "tcpSocket", "sleep"], context.grace_seconds, errors);
        }
    }
    stop_signal(&container.at("lifecycle.stopSignal"), context.system, errors);
    liveness(&container.get("livenessProbe"), errors);
    let readiness = container.get("readinessProbe");
    probe(&readiness, errors);
    let grace = readiness.get("terminationGracePeriodSeconds");
    if grace.exists() {
        grace.invalid(errors, "must not be set for readinessProbes");
    }
    liveness(&container.get("startupProbe"), errors);
}

/// Signals are those of the pod's system, which has to be named.
fn stop_signal(signal: &Field<'_>, system: Option<&str>, errors: &mut Errors) {
    if !signal.exists() {
        return;
    }
    match system {
        None => signal.forbidden(errors, "may not be set for containers with empty `spec.os.name`"),
        Some("windows") => signal.one_of(errors, &["SIGKILL", "SIGTERM"]),
        Some("linux") => signal.one_of(errors, &SIGNALS.split_whitespace().collect::<Vec<_>>()),
        Some(_) => {}
    }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn signals_are_those_of_the_system() {
        let told = |signal: &str, system: Option<&str>| {
            let signal = json!(signal);
            let mut errors = Errors::default();
            stop_signal(&Field::root(&signal), system, &mut errors);
            errors.into_vec().into_iter().map(|error| error.detail).collect::<Vec<_>>()
        };
        assert_eq!(told("SIGUSR1", Some("linux")), [""; 0]);
        assert_eq!(told("SIGTERM", None), ["may not be set for containers with empty `spec.os.name`"]);
        assert_eq!(told("SIGUSR1", Some("windows")), ["\"SIGUSR1\": supported values: \"SIGKILL\", \"SIGTERM\""]);
        assert!(told("SIGNOTHING", Some("linux"))[0].starts_with("\"SIGNOTHING\": supported values: \"SIGABRT\", "));
    }
}
