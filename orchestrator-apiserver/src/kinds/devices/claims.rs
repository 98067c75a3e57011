//! What a claim asks for: requests of devices, what they have in common, how they are configured.

use std::collections::BTreeSet;

use orchestrator_core::status::FieldErrorKind;

use super::{driver_name, each, each_once, fully_qualified, label, raw};
use crate::{
    field::{Errors, Field},
    kinds::check,
    names,
};

/// Requests of one claim, and those that one constraint or configuration is about.
const REQUESTS_MAX: usize = 32;
const CONSTRAINTS_MAX: usize = 32;
/// Configurations of one claim or class.
pub(super) const CONFIGURATIONS_MAX: usize = 32;
const CHOICES_MAX: usize = 8;
const SELECTORS_MAX: usize = 32;
const EXPRESSION_BYTES: usize = 10 * 1024;
const PARAMETERS_BYTES: usize = 10 * 1024;
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];
const REFERENCE: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

/// The names by which a claim's requests are known: `request`, and `request/choice`.
pub(super) type RequestNames = BTreeSet<String>;

/// The rules of what a claim asks for, or a template of claims.
pub(super) fn validate(spec: &Field<'_>, errors: &mut Errors) {
    let devices = spec.get("devices");
    let known = request_names(spec);
    each_once(&devices.get("requests"), REQUESTS_MAX, |request| request.get("name").text().to_owned(), errors, request);
    each(&devices.get("constraints"), CONSTRAINTS_MAX, errors, |constraint, errors| {
        references(&constraint.get("requests"), &known, errors);
        common_attribute(constraint, errors);
    });
    each(&devices.get("config"), CONFIGURATIONS_MAX, errors, |config, errors| {
        references(&config.get("requests"), &known, errors);
        configuration(config, errors);
    });
}

/// The names of the requests of a claim.
pub(super) fn request_names(spec: &Field<'_>) -> RequestNames {
    let mut names = RequestNames::new();
    for request in spec.at("devices.requests").items() {
        let name = request.get("name").text();
        let choices = request.get("firstAvailable").items();
        names.extend(choices.iter().map(|choice| format!("{name}/{}", choice.get("name").text())));
        names.insert(name.to_owned());
    }
    names
}

fn request(request: &Field<'_>, errors: &mut Errors) {
    label(&request.get("name"), errors);
    let (exactly, first) = (request.get("exactly"), request.get("firstAvailable"));
    match (exactly.exists(), first.len() > 0) {
        (true, true) => {
            let detail = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            request.wrong(errors, "null", detail);
        }
        (false, false) => request.required(errors, "exactly one of `exactly` or `firstAvailable` is required"),
        (true, false) => wanted(&exactly, errors),
        (false, true) => {
            each_once(
                &first,
                CHOICES_MAX,
                |choice| choice.get("name").text().to_owned(),
                errors,
                |choice, errors| {
                    label(&choice.get("name"), errors);
                    wanted(choice, errors);
                },
            );
        }
    }
}

/// Which devices, how many of them, and with which taints.
fn wanted(request: &Field<'_>, errors: &mut Errors) {
    check::needed(&request.get("deviceClassName"), names::subdomain, errors);
    selectors(&request.get("selectors"), errors);
    let (mode, count) = (request.get("allocationMode"), request.get("count"));
    let number = count.int().unwrap_or(0);
    match mode.text() {
        "All" if number != 0 => count.invalid(errors, "must not be specified when allocationMode is 'All'"),
        "ExactCount" if number <= 0 => count.wrong(errors, number, "must be greater than zero"),
        "All" | "ExactCount" => {}
        _ => mode.not_supported(errors, &["All", "ExactCount"]),
    }
    for toleration in request.get("tolerations").items() {
        tolerated(&toleration, errors);
    }
}

fn tolerated(toleration: &Field<'_>, errors: &mut Errors) {
    check::given(&toleration.get("key"), names::qualified_name, errors);
    let (operator, value) = (toleration.get("operator"), toleration.get("value"));
    match operator.text() {
        "Exists" if !value.text().is_empty() => value.invalid(errors, "must be empty for operator `Exists`"),
        "Exists" => {}
        "Equal" => check::problems(&value, &names::label_value(value.text()), errors),
        "" => operator.required(errors, ""),
        _ => operator.not_supported(errors, &["Equal", "Exists"]),
    }
    let effect = toleration.get("effect");
    if !effect.text().is_empty() {
        effect.one_of(errors, &EFFECTS);
    }
}

/// The rules of a taint of a device.
pub(super) fn taint(taint: &Field<'_>, errors: &mut Errors) {
    check::label_key(&taint.get("key"), errors);
    check::given(&taint.get("value"), names::label_value, errors);
    let effect = taint.get("effect");
    check::required(&effect, errors);
    if !effect.text().is_empty() {
        effect.one_of(errors, &EFFECTS);
    }
}

/// Expressions that choose devices.
pub(super) fn selectors(selectors: &Field<'_>, errors: &mut Errors) {
    each(selectors, SELECTORS_MAX, errors, |selector, errors| {
        let (cel, expression) = (selector.get("cel"), selector.at("cel.expression"));
        if !cel.exists() {
            cel.required(errors, "");
        } else if expression.len() > EXPRESSION_BYTES {
            let detail = format!("may not be more than {EXPRESSION_BYTES} bytes");
            expression.error(errors, FieldErrorKind::TooLong, detail);
        } else {
            check::required(&expression, errors);
        }
    });
}

/// The attribute in which devices are alike, or differ.
fn common_attribute(constraint: &Field<'_>, errors: &mut Errors) {
    let ways = [constraint.get("matchAttribute"), constraint.get("distinctAttribute")];
    match ways.iter().find(|attribute| attribute.exists()) {
        Some(attribute) => fully_qualified(attribute, errors),
        // What upstream says here, though none is set.
        None => constraint.required(
            errors,
            r#"exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set"#,
        ),
    }
}

/// The requests that something is about.
pub(super) fn references(requests: &Field<'_>, known: &RequestNames, errors: &mut Errors) {
    each_once(
        requests,
        REQUESTS_MAX,
        |name| name.text().to_owned(),
        errors,
        |name, errors| {
            reference(name, known, errors);
        },
    );
}

/// One request of the claim by its name.
pub(super) fn reference(name: &Field<'_>, known: &RequestNames, errors: &mut Errors) {
    let parts = name.text().split('/').collect::<Vec<_>>();
    if parts.len() > 2 {
        return name.invalid(errors, REFERENCE);
    }
    for part in parts {
        for problem in names::label(part) {
            name.wrong(errors, format!("{part:?}"), &problem);
        }
    }
    if !known.contains(name.text()) {
        name.invalid(errors, REFERENCE);
    }
}

/// What a driver is told about devices.
pub(super) fn configuration(config: &Field<'_>, errors: &mut Errors) {
    let opaque = config.get("opaque");
    if opaque.exists() {
        driver_name(&opaque.get("driver"), errors);
        raw(&opaque.get("parameters"), PARAMETERS_BYTES, errors);
    } else {
        opaque.required(errors, "");
    }
}
