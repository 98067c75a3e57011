//! What is served, and how deeply: a document made from the rows themselves.

use std::fmt::Write;

use super::{Kind, builtin};
use crate::{kinds, views::table::column_names};

/// Places that discovery shows and that answer with a refusal: `apiVersion`, resource or subresource, and why.
const REFUSED: [(&str, &str, &str); 1] =
    [("v1", "componentstatuses", "no component reports here; the list is empty, as there is nothing to get")];

/// Kinds that are stored, with none of the effects that they have upstream: `apiVersion`, resource, and what is missing.
const WITHOUT_EFFECT: [(&str, &str, &str); 8] = [
    ("admissionregistration.k8s.io/v1", "mutatingadmissionpolicies", "not evaluated"),
    ("admissionregistration.k8s.io/v1", "mutatingadmissionpolicybindings", "not evaluated"),
    ("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations", "not called"),
    ("admissionregistration.k8s.io/v1", "validatingadmissionpolicies", "not evaluated"),
    ("admissionregistration.k8s.io/v1", "validatingadmissionpolicybindings", "not evaluated"),
    ("admissionregistration.k8s.io/v1", "validatingwebhookconfigurations", "not called"),
    ("apiregistration.k8s.io/v1", "apiservices", "requests are not forwarded"),
    ("certificates.k8s.io/v1", "certificatesigningrequests", "nobody signs, but whoever is asked to"),
];

const INTRODUCTION: &str = "# Support matrix

Made from the code by `cargo run --example support_matrix > docs/support-matrix.md`; a test fails when it is stale.

Every stable resource of Kubernetes 1.36 is served. *Of the kind* means that defaults and rules are those of the kind;
*metadata and schema* that an object is checked for unknown fields, types and metadata, and stored as it is; *answered* that it
is a question and not kept.

";

/// The verbs of a kind that can do everything.
const ALL_VERBS: &str = "create, delete, deletecollection, get, list, patch, update, watch";

/// The support matrix, in Markdown.
pub fn support_matrix() -> String {
    let mut out = INTRODUCTION.to_owned();
    out.push_str("| Resource | Version | Verbs | Subresources | Defaults and rules | Columns of `kubectl get` |\n");
    out.push_str("|---|---|---|---|---|---|\n");
    for kind in builtin::kinds() {
        line(&mut out, &kind);
    }
    out.push_str("\n## Refused\n\nDiscovery shows these places, and a request to them is refused.\n\n| Place | Version | Why |\n|---|---|---|\n");
    rows(&mut out, &REFUSED);
    out.push_str("\n## Without effect\n\nObjects of these kinds are stored, and nothing comes of them.\n\n| Resource | Version | Missing |\n|---|---|---|\n");
    rows(&mut out, &WITHOUT_EFFECT);
    out
}

fn rows(out: &mut String, rows: &[(&str, &str, &str)]) {
    for (version, place, why) in rows {
        let _ = writeln!(out, "| {place} | {version} | {why} |");
    }
}

fn line(out: &mut String, kind: &Kind) {
    let (resource, version) = (&kind.resource.plural, kind.api_version());
    let refused = |place: &str| REFUSED.iter().any(|(of, refused, _)| *of == version && *refused == place);
    let verbs = kind.verbs.join(", ");
    let verbs = if verbs == ALL_VERBS { "all" } else { &verbs };
    let subresources = kind.subresources.iter().map(|subresource| subresource.name.as_str());
    let subresources = subresources.filter(|name| !refused(&format!("{resource}/{name}")));
    let subresources: Vec<&str> = subresources.collect();
    let depth = match kind.verbs.as_slice() {
        _ if refused(resource) => "refused",
        [only] if only == "create" => "answered",
        _ if kinds::is_deep(&kind.resource.group, resource) => "of the kind",
        _ => "metadata and schema",
    };
    let columns = column_names(kind).join(", ");
    let _ = writeln!(out, "| {resource} | {version} | {verbs} | {} | {depth} | {columns} |", subresources.join(", "));
}
